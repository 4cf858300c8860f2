"""What a transaction has to write: gathered, and sent with one statement for each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import DictRow

from steno.job.domain import Change, Job, Slice, Task
from steno.job.messages import render_event
from steno.job.rows import columns_of, new_task_columns_of, saved_columns_of, saved_task_columns_of
from steno.job.statements import (
    INSERT_EVENTS,
    INSERT_JOBS,
    INSERT_TASKS,
    SAVE_JOBS,
    SAVE_TASKS,
)
from steno.platform.database import Connection, every, recordset


class Writer:
    """A transaction in which many jobs change.

    What is to be written is sent before the next statement, and by `flush` at the end.
    """

    def __init__(self, db: Connection, lease: timedelta) -> None:
        """Takes a connection that is in a transaction, and how long leases last from now on."""
        self._db = db
        self._lease = lease
        self._new_jobs: list[dict[str, Any]] = []
        self._jobs: dict[UUID, dict[str, Any]] = {}
        self._new_tasks: list[dict[str, Any]] = []
        self._tasks: dict[UUID, dict[str, Any]] = {}
        self._events: list[tuple[UUID, int, bytes]] = []

    def insert_job(self, job: Job, trace: Mapping[str, str]) -> None:
        """Writes a new job, with the trace of the call that made it."""
        self._new_jobs.append(columns_of(job) | {"trace": dict(trace)})

    def save_job(self, job: Job) -> None:
        """Writes what a job has become."""
        self._jobs[job.job_id] = saved_columns_of(job)

    def insert_tasks(self, job: Job, slices: Sequence[Slice], turns: Sequence[int]) -> None:
        """Writes a task for each of some slices of a job."""
        self._new_tasks += [
            new_task_columns_of(job, piece, turn) for piece, turn in zip(slices, turns, strict=True)
        ]

    def save_task(self, task: Task, result: bytes | None = None) -> None:
        """Writes what a task has become, and its result if it has one now."""
        self._tasks[task.task_id] = saved_task_columns_of(task) | {"result": result}

    def insert_events(self, job: Job, time: datetime, events: Sequence[Change]) -> None:
        """Writes the last events of a job, whose revision is that of the last of them."""
        first = job.revision - len(events) + 1
        for revision, event in enumerate(events, first):
            rendered = render_event(job.job_id, revision, time, event)
            self._events.append((job.job_id, revision, rendered.SerializeToString()))

    async def execute(self, statement: LiteralString, **parameters: Any) -> None:
        """Runs a statement after what was to be written before it."""
        await self.flush()
        await self._db.execute(statement, parameters)

    async def every(self, statement: LiteralString, **parameters: Any) -> list[DictRow]:
        """The same; returns its rows."""
        await self.flush()
        return await every(self._db, statement, **parameters)

    async def flush(self) -> None:
        """Sends what is to be written. What is wrong with it is raised with the next answer."""
        for statement, rows in (
            (INSERT_JOBS, self._new_jobs),
            (INSERT_TASKS, self._new_tasks),
            (SAVE_TASKS, self._tasks.values()),
            (SAVE_JOBS, self._jobs.values()),
        ):
            if rows:
                parameters = {"rows": recordset(rows), "lease": self._lease}
                await self._db.execute(statement, parameters)
        if self._events:
            job_ids, revisions, payloads = map(list, zip(*self._events, strict=True))
            parameters = {"job_ids": job_ids, "revisions": revisions, "payloads": payloads}
            await self._db.execute(INSERT_EVENTS, parameters)
        for written in (self._new_jobs, self._new_tasks, self._tasks, self._jobs, self._events):
            written.clear()
