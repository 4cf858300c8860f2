"""What must go out of Postgres: events and tasks to NATS, questions to the upload service.

Nothing here changes a job. Replicas take different rows, without waiting for each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from steno.job.statements import (
    CLAIM_AUDIO_TO_CHECK,
    CLAIM_MESSAGES_TO_CHECK,
    FORGET_MESSAGE,
    JOBS_OF_AUDIO,
    MARK_DISPATCHED,
    MARK_PUBLISHED,
    STATISTICS,
    UNPUBLISHED_EVENTS,
)
from steno.job.turns import A_WHILE, DUE_TASKS, LEAST_SHARE, LEAST_WAITING, MOMENT
from steno.platform.database import Pool, every, one


@dataclass(frozen=True, slots=True)
class UnpublishedEvent:
    """A row of the event log that NATS has not got; `payload` is a JobEvent."""

    job_id: UUID
    revision: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DueTask:
    """A task that needs a message in the work queue.

    `dispatch_count` messages came before; `trace` holds the headers of the call that made the job.
    """

    task_id: UUID
    job_id: UUID
    model: str
    priority: int
    attempt: int
    dispatch_count: int
    trace: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AudioToCheck:
    """A job whose audio may have changed, and how many of its slices the job knows."""

    job_id: UUID
    audio_id: UUID
    task_count: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much there is.

    Attributes:
        jobs: number of jobs that have not ended, by state.
        tasks: number of tasks that have not ended, by state.
        queued: seconds of audio that wait and may be done, by model.
        oldest_task: seconds for which a task waits for a worker, of the one that does so longest.
        parked_tasks: number of tasks that wait for their next try.
        outbox_lag: age in seconds of the oldest event that NATS has not got.
    """

    jobs: dict[str, int]
    tasks: dict[str, int]
    queued: dict[str, float]
    oldest_task: float
    parked_tasks: int
    outbox_lag: float


class Outbox:
    """The rows that somebody else must learn of, and the marks that they have."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def unpublished(
        self, limit: int, aside: Sequence[tuple[UUID, int]] = ()
    ) -> AsyncIterator[tuple[Sequence[UnpublishedEvent], list[UnpublishedEvent]]]:
        """Hands out events that NATS has not got, and a list for those that it has got then.

        Another replica gets others meanwhile.

        Args:
            limit: most events.
            aside: job and revision of events to leave out.
        """
        async with self._pool.transaction() as db:
            rows = await every(
                db,
                UNPUBLISHED_EVENTS,
                limit=limit,
                job_ids_aside=[job_id for job_id, _ in aside],
                revisions_aside=[revision for _, revision in aside],
            )
            sent: list[UnpublishedEvent] = []
            yield [UnpublishedEvent(**row) for row in rows], sent
            if sent:
                marked = {
                    "job_ids": [event.job_id for event in sent],
                    "revisions": [event.revision for event in sent],
                }
                await db.execute(MARK_PUBLISHED, marked)

    async def due_tasks(
        self,
        limit: int,
        least_waiting: int = LEAST_WAITING,
        moment: timedelta = MOMENT,
        a_while: timedelta = A_WHILE,
        least_share: float = LEAST_SHARE,
        aside: Sequence[UUID] = (),
    ) -> list[DueTask]:
        """Returns the tasks whose turn it is to get a message.

        Args:
            limit: most tasks to return.
            least_waiting: messages that a model's queue may hold in any case.
            moment: it may hold as many as were done in this time.
            a_while: what a tenant or a priority has had in this time counts.
            least_share: of it, that a priority has while it has work, whatever goes before it.
            aside: tasks to leave out.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                DUE_TASKS,
                limit=limit,
                least_waiting=least_waiting,
                moment=moment,
                a_while=a_while,
                least_share=least_share,
                aside=list(aside),
            )
        return [DueTask(**row) for row in rows]

    async def dispatched(self, tasks: Sequence[DueTask], sequences: Sequence[int]) -> None:
        """Messages for the tasks are in the work queue, with these numbers."""
        async with self._pool.connection() as db:
            await db.execute(
                MARK_DISPATCHED,
                {
                    "task_ids": [task.task_id for task in tasks],
                    "attempts": [task.attempt for task in tasks],
                    "counts": [task.dispatch_count for task in tasks],
                    "sequences": list(sequences),
                },
            )

    async def messages_to_check(self, age: timedelta, limit: int) -> list[tuple[UUID, int]]:
        """Returns tasks that have waited so long since their message was seen, with its number.

        Another replica gets others.
        """
        async with self._pool.connection() as db:
            rows = await every(db, CLAIM_MESSAGES_TO_CHECK, age=age, limit=limit)
        return [(row["task_id"], row["message_sequence"]) for row in rows]

    async def message_lost(self, task_id: UUID, sequence: int) -> None:
        """The work queue has no such message for the task: it needs another."""
        async with self._pool.connection() as db:
            await db.execute(FORGET_MESSAGE, {"task_id": task_id, "sequence": sequence})

    async def audio_to_check(
        self, preparing_age: timedelta, ready_age: timedelta, limit: int
    ) -> list[AudioToCheck]:
        """Returns jobs whose audio was not asked for in a while. Another replica gets others.

        Args:
            preparing_age: for audio that is being prepared.
            ready_age: for audio that is READY, which can only be deleted any more.
            limit: most jobs to return of each of the two.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                CLAIM_AUDIO_TO_CHECK,
                preparing_age=preparing_age,
                ready_age=ready_age,
                limit=limit,
            )
        return [AudioToCheck(**row) for row in rows]

    async def jobs_of_audio(self, audio_id: UUID) -> list[AudioToCheck]:
        """Returns the jobs on an audio that have not ended."""
        async with self._pool.connection() as db:
            return [
                AudioToCheck(**row) for row in await every(db, JOBS_OF_AUDIO, audio_id=audio_id)
            ]

    async def statistics(self) -> Statistics:
        """Counts what there is."""
        async with self._pool.connection() as db:
            row = await one(db, STATISTICS)
        assert row is not None
        return Statistics(**row)
