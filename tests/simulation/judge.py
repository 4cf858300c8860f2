"""Runs a schedule and says which promises it broke."""

from __future__ import annotations

from collections.abc import Iterable

from simulation.job_schedule import MIXES, Schedule
from simulation.loop import Stuck
from simulation.promises import Broken, broken_promises


def judged(schedule: Schedule) -> list[Broken]:
    """Lets a schedule happen; returns the promises that do not hold then."""
    try:
        evidence = schedule.run()
    except Stuck as stuck:
        return [Broken("everything_has_an_end", str(stuck))]
    return broken_promises(evidence)


def command(seed: int) -> str:
    """What runs a schedule again, and tells all that happens in it."""
    return f"PYTHONPATH=tests .venv/bin/python -m simulation --seed {seed} --trace"


SCHEDULES = 10_000
"""Of all mixes together, that the tests run."""
PARTS = 5
"""Tests that share those of one mix."""


def seeds_of(mix: str, part: int) -> range:
    """The seeds of a mix that one of its tests runs."""
    kinds = len(MIXES)
    each = SCHEDULES // kinds // PARTS
    first = MIXES.index(mix) + part * each * kinds
    return range(first, first + each * kinds, kinds)


def check(seeds: Iterable[int]) -> None:
    """Raises AssertionError, with the command that shows more, if a schedule breaks a promise."""
    for seed in seeds:
        broken = judged(Schedule(seed))
        told = "\n".join(map(str, broken))
        assert not broken, f"seed {seed}: {told}\nagain: {command(seed)}"
