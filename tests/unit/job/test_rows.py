"""What the domain changes is what the statements save."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from steno.job import domain, turns
from steno.job.domain import Job, Slice, Task
from steno.job.rows import (
    FIXED_JOB_COLUMNS,
    FIXED_TASK_COLUMNS,
    JOB_COLUMNS,
    NEW_TASK_COLUMNS,
    OTHERWISE_SAVED_TASK_COLUMNS,
    SAVED_JOB_COLUMNS,
    SAVED_TASK_COLUMNS,
    columns_of,
    new_task_columns_of,
    saved_columns_of,
    saved_task_columns_of,
)
from steno.job.statements import INSERT_JOBS, INSERT_TASKS, RELEASE_TASKS, SAVE_JOBS, SAVE_TASKS
from steno.transcript import Options

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(uuid4(), uuid4(), "talk.mp3", {}, Options("builtin"), NOW, NOW)
SLICE = Slice(0, 0, 1000, 1000, "slices/0")
TASK = Task(uuid4(), JOB.job_id, SLICE)

COLUMNS_OF_FIELDS = {"error": {"error_reason", "error_message"}}
"""Fields of a job that are kept in columns of other names."""


def assigned(statement: str) -> set[str]:
    """The columns that an UPDATE sets."""
    return set(re.findall(r"(\w+) = ", re.split(r"SET\s|\nFROM", statement)[1]))


def inserted(statement: str) -> set[str]:
    """The columns that an INSERT fills."""
    [columns] = re.findall(r"INSERT INTO [\w.]+ \(([^)]*)\)", statement)
    return set(columns.split(", "))


def replaced_in(*code: type | object) -> set[str]:
    """The fields that functions give other values, by `replace`."""
    return {
        keyword.arg
        for each in code
        for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(each))))  # type: ignore[arg-type]
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "replace"
        for keyword in call.keywords
        if keyword.arg is not None
    }


def test_every_field_of_a_job_has_its_columns() -> None:
    fields = {field.name for field in dataclasses.fields(Job)}
    columns = {column for name in fields for column in COLUMNS_OF_FIELDS.get(name, {name})}

    assert set(JOB_COLUMNS) == columns
    assert set(columns_of(JOB)) == columns
    assert inserted(INSERT_JOBS) == columns | {"trace"}


def test_every_column_of_a_job_that_may_change_is_saved() -> None:
    assert assigned(SAVE_JOBS) == set(JOB_COLUMNS) - set(FIXED_JOB_COLUMNS)
    assert set(SAVED_JOB_COLUMNS) == assigned(SAVE_JOBS)
    assert set(saved_columns_of(JOB)) == assigned(SAVE_JOBS) | {"job_id"}


def test_no_rule_changes_a_column_of_a_job_that_is_not_saved() -> None:
    changed = replaced_in(Job, domain.events_between, turns.queued) | {"update_time"}
    columns = {column for name in changed for column in COLUMNS_OF_FIELDS.get(name, {name})}

    assert columns == assigned(SAVE_JOBS)


def test_every_column_of_a_task_that_may_change_is_saved() -> None:
    fields = {field.name for field in dataclasses.fields(Task)} - {"slice"}

    assert set(SAVED_TASK_COLUMNS) == fields - {*FIXED_TASK_COLUMNS, *OTHERWISE_SAVED_TASK_COLUMNS}
    assert assigned(SAVE_TASKS) >= set(SAVED_TASK_COLUMNS)
    assert assigned(SAVE_TASKS) | assigned(RELEASE_TASKS) >= set(OTHERWISE_SAVED_TASK_COLUMNS)
    assert set(saved_task_columns_of(TASK)) == {"task_id", *SAVED_TASK_COLUMNS}


def test_no_rule_changes_a_column_of_a_task_that_is_not_saved() -> None:
    assert replaced_in(Task) <= assigned(SAVE_TASKS)


def test_a_new_task_has_all_columns_of_its_slice() -> None:
    assert inserted(INSERT_TASKS) == set(NEW_TASK_COLUMNS)
    assert set(new_task_columns_of(JOB, SLICE, turn=0)) == set(NEW_TASK_COLUMNS)


@pytest.mark.parametrize("statement", [SAVE_JOBS, SAVE_TASKS])
def test_the_columns_of_an_update_are_found(statement: str) -> None:
    assert {"state", "transcribed_sample_count"} <= assigned(statement)
