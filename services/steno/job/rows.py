"""Rows of the database as the domain's values."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

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
from steno.job.messages import parse_result
from steno.transcript import Options, SliceTranscript, Span

_JOB_COLUMNS = tuple(
    column.name
    for column in dataclasses.fields(Job)
    if column.name not in ("config", "state", "audio_state", "error", "priority")
)


COLUMNS = (
    *_JOB_COLUMNS,
    *("config", "state", "audio_state", "priority", "error_reason", "error_message"),
)
"""The columns that a job is read from, and written to."""

JOB = ", ".join(f"jobs.{name}" for name in COLUMNS)


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


def columns_of(job: Job) -> dict[str, Any]:
    """A job's columns that may change, for SAVE_JOB."""
    changing = set(_JOB_COLUMNS) - {
        "labels",
        "display_name",
        "create_time",
        "not_before",
        "deadline",
        "tenant",
        "allow_gaps",
    }
    return {name: getattr(job, name) for name in changing} | {
        "state": job.state,
        "audio_state": job.audio_state,
        "error_reason": job.error and job.error.reason,
        "error_message": job.error and job.error.message,
    }


def new_columns_of(job: Job) -> dict[str, Any]:
    """All of a job's columns."""
    return (
        {name: getattr(job, name) for name in _JOB_COLUMNS}
        | columns_of(job)
        | {
            "labels": Jsonb(dict(job.labels)),
            "config": Jsonb(_stored(job.config)),
            "priority": job.priority,
        }
    )


def standing_of(row: DictRow) -> Standing:
    """Reads a row of job.jobs with its place in the queue."""
    seconds = row["remaining_seconds"]
    return Standing(
        job=job_of(row),
        queue_position=row["queue_position"],
        remaining=None if seconds is None else timedelta(seconds=seconds),
        retried=_retried_of(row) if row["retried_count"] else None,
    )


def _retried_of(row: DictRow) -> Retried:
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


SLICE = (
    "slice_index, start_sample, sample_count, speech_sample_count, object_key,"
    " left_context_sample_count, right_context_sample_count, context_object_key, gaps"
)
"""The columns that a slice is read from."""

TASK = ", ".join(
    (
        *_TASK_COLUMNS,
        SLICE,
        "state",
    )
)
"""The columns that a task is read from."""


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


def result_of(row: DictRow) -> SliceTranscript:
    """Reads the result of a task that is done, or was left out."""
    return parse_result(slice_of(row), row["result"])
