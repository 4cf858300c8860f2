"""What the simulation's silence is worth: it finds bugs that are known, by what they break."""

from __future__ import annotations

import pytest

from simulation.job_schedule import Schedule
from simulation.judge import judged
from simulation.planted import BUGS, Bug

BUDGET = 1500
"""Schedules within which each is found. Most are within a hundred."""


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_it_is_noticed_that(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    promises = {promise.__name__ for promise in bug.breaks}
    for seed in range(BUDGET):
        if promises & {broken.promise for broken in judged(Schedule(seed))}:
            return
    pytest.fail(f"{BUDGET} schedules did not show that {bug.name}")
