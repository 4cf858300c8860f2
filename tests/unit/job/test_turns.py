"""The turns of slices on the clock of their line."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from steno.job.domain import Job, Slice
from steno.job.turns import queued
from steno.transcript import Options

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LENGTH = 1000


def a_job(turn: int) -> Job:
    return Job(uuid4(), uuid4(), "talk.mp3", {}, Options("builtin"), NOW, NOW, turn=turn)


def slices(count: int) -> list[Slice]:
    return [Slice(index, index * LENGTH, LENGTH, LENGTH, f"{index}") for index in range(count)]


def test_slices_get_turns_one_after_the_other() -> None:
    job, turns = queued(a_job(turn=500), slices(2), clock=100)

    assert turns == [500, 1500]
    assert job.turn == 2500


def test_a_job_that_comes_late_joins_where_the_others_are() -> None:
    assert queued(a_job(turn=0), slices(1), clock=7000)[1] == [7000]
