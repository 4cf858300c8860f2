"""Rows of the database as the domain's values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Range

from steno.job.domain import (
    AudioState,
    Job,
    JobError,
    JobState,
    Priority,
    Retried,
    Slice,
    Standing,
    Task,
    TaskState,
)
from steno.transcript import Options, Span

_JOB_COLUMNS = tuple(
    column.name
    for column in dataclasses.fields(Job)
    if column.name not in ("config", "state", "audio_state", "error", "priority")
)

JOB_COLUMNS = (
    *_JOB_COLUMNS,
    *("config", "state", "audio_state", "priority", "error_reason", "error_message"),
)
"""The columns that a job is read from, and inserted into."""

NEW_JOB_COLUMNS = (*JOB_COLUMNS, "trace")
"""The columns that a new job is inserted into; the others have defaults."""

FIXED_JOB_COLUMNS = (
    *("job_id", "tenant", "audio_id", "display_name", "labels", "config", "priority"),
    *("retry_of_job_id", "not_before", "deadline", "allow_gaps", "create_time"),
)
"""The columns of a job that keep the values of its creation."""

SAVED_JOB_COLUMNS = tuple(name for name in JOB_COLUMNS if name not in FIXED_JOB_COLUMNS)
"""The columns of a job that may change. SAVE_JOBS writes all of them."""

JOB = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS)


def job_of(row: DictRow) -> Job:
    """Reads a row of job.jobs."""
    reason, message = row["error_reason"], row["error_message"]
    return Job(
        **{name: row[name] for name in _JOB_COLUMNS},
        config=_options_of(row["config"]),
        state=JobState(row["state"]),
        audio_state=AudioState(row["audio_state"]),
        priority=Priority(row["priority"]),
        error=JobError(reason, message) if reason is not None else None,
    )


_OPTIONS = {option.name for option in dataclasses.fields(Options)} - {"newer"}


def _options_of(stored: dict[str, Any]) -> Options:
    """Reads options, whichever version wrote it: older ones lack options, newer ones have more."""
    known = {name: value for name, value in stored.items() if name in _OPTIONS}
    return Options(
        **known | {"hotwords": tuple(known.get("hotwords", ()))},
        newer={name: value for name, value in stored.items() if name not in _OPTIONS},
    )


def _stored(options: Options) -> dict[str, Any]:
    known = dataclasses.asdict(options)
    newer: dict[str, Any] = known.pop("newer")
    return newer | known


_MADE_COLUMNS: dict[str, Callable[[Job], Any]] = {
    "labels": lambda job: dict(job.labels),
    "config": lambda job: _stored(job.config),
    "error_reason": lambda job: job.error and job.error.reason,
    "error_message": lambda job: job.error and job.error.message,
}
"""The columns of a job that are no fields of the domain's."""


def columns_of(job: Job, names: Iterable[str] = JOB_COLUMNS) -> dict[str, Any]:
    """The values of some of JOB_COLUMNS."""
    made = _MADE_COLUMNS
    return {name: made[name](job) if name in made else getattr(job, name) for name in names}


def saved_columns_of(job: Job) -> dict[str, Any]:
    """The values of SAVED_JOB_COLUMNS, with the id of the job."""
    return columns_of(job, ("job_id", *SAVED_JOB_COLUMNS))


class Load(NamedTuple):
    """How many jobs have not ended, and how many samples of them are still to be done."""

    jobs: int
    samples: int


def loads_of(rows: Iterable[DictRow]) -> dict[str, Load]:
    """Reads the rows of LOADS, by tenant."""
    return {row["tenant"]: Load(row["jobs"], row["samples"]) for row in rows}


Queue = Mapping[UUID, tuple[int | None, float | None]]
"""Position of a job while it is QUEUED, and the seconds that are left."""


def queue_of(row: DictRow | None) -> Queue:
    """Reads the row of QUEUE."""
    if row is None or row["job_ids"] is None:
        return {}
    places = zip(row["positions"], row["remaining_seconds"], strict=True)
    return dict(zip(row["job_ids"], places, strict=True))


def standing_of(row: DictRow, queue: Queue) -> Standing:
    """Reads a row of JOBS_WITH_RETRIED, and finds the job's place in the queue."""
    job = job_of(row)
    position, seconds = queue.get(job.job_id, (None, None))
    return Standing(
        job=job,
        queue_position=position if job.state is JobState.QUEUED else None,
        remaining=None if seconds is None or job.state.ended else timedelta(seconds=seconds),
        retried=_retried_of(row),
    )


def _retried_of(row: DictRow) -> Retried | None:
    if not row["retried_count"]:
        return None
    return Retried(
        slice_count=row["retried_count"],
        slice_index=row["slice_index"],
        failure_count=row["failure_count"],
        last_error=row["last_error"],
        next_attempt_time=row["next_attempt_time"],
    )


_TASK_COLUMNS = tuple(
    column.name for column in dataclasses.fields(Task) if column.name not in ("slice", "state")
)

SLICE_COLUMNS = (
    *("slice_index", "start_sample", "sample_count", "speech_sample_count"),
    *("left_context_sample_count", "right_context_sample_count", "context_object_key", "gaps"),
    "object_key",
)
"""The columns of a task that its slice is read from. They keep the values of its creation."""

SLICE = ", ".join(SLICE_COLUMNS)

FIXED_TASK_COLUMNS = ("task_id", "job_id", "create_time")
"""The other columns of a task that keep the values of its creation."""

OTHERWISE_SAVED_TASK_COLUMNS = ("released", "lease_expire_time")
"""RELEASE_TASKS writes the first; SAVE_TASKS computes the second by the database's clock."""

SAVED_TASK_COLUMNS = (
    "state",
    *(
        name
        for name in _TASK_COLUMNS
        if name not in FIXED_TASK_COLUMNS + OTHERWISE_SAVED_TASK_COLUMNS
    ),
)
"""The columns of a task that SAVE_TASKS writes as the domain has them."""

NEW_TASK_COLUMNS = ("tenant", "job_id", "model", *SLICE_COLUMNS, "released", "priority", "turn")
"""The columns that a new task is inserted into; the others have defaults."""

TASK = ", ".join((*_TASK_COLUMNS, *SLICE_COLUMNS, "state"))
"""The columns that a task is read from."""


def new_task_columns_of(job: Job, piece: Slice, turn: int) -> dict[str, Any]:
    """The values of NEW_TASK_COLUMNS for a slice of a job."""
    return {
        "tenant": job.tenant,
        "job_id": job.job_id,
        "model": job.config.model,
        "slice_index": piece.index,
        "start_sample": piece.start_sample,
        "sample_count": piece.sample_count,
        "speech_sample_count": piece.speech_sample_count,
        "left_context_sample_count": piece.left_context_sample_count,
        "right_context_sample_count": piece.right_context_sample_count,
        "context_object_key": piece.context_object_key,
        "gaps": Int8Multirange([Range(gap.start, gap.end) for gap in piece.gaps]),
        "object_key": piece.object_key,
        "released": job.releases(piece),
        "priority": job.priority,
        "turn": turn,
    }


def saved_task_columns_of(task: Task) -> dict[str, Any]:
    """The values of SAVED_TASK_COLUMNS, with the id of the task."""
    return {name: getattr(task, name) for name in ("task_id", *SAVED_TASK_COLUMNS)}


def task_of(row: DictRow) -> Task:
    """Reads a row of job.tasks."""
    return Task(
        **{name: row[name] for name in _TASK_COLUMNS},
        slice=slice_of(row),
        state=TaskState(row["state"]),
    )


def slice_of(row: DictRow) -> Slice:
    """Reads the slice of a row of job.tasks."""
    return Slice(
        index=row["slice_index"],
        start_sample=row["start_sample"],
        sample_count=row["sample_count"],
        speech_sample_count=row["speech_sample_count"],
        object_key=row["object_key"],
        left_context_sample_count=row["left_context_sample_count"],
        right_context_sample_count=row["right_context_sample_count"],
        context_object_key=row["context_object_key"],
        gaps=tuple(Span(gap.lower, gap.upper) for gap in row["gaps"]),
    )
