"""Schedules of the job service in which its callers and workers are the trouble.

What is the same for all schedules stands here, too. Those in which servers and processes die are in
test_jobs_killed.py: the tests of a file run in one process.
"""

from __future__ import annotations

import pytest

from simulation.job_schedule import MIXES, Schedule
from simulation.judge import check, seeds_of

SCHEDULES = 40
"""Of each mix; of all five, ten thousand."""


@pytest.mark.parametrize("mix", ["nothing", "calls", "leases"])
def test_the_job_service_keeps_its_promises_when_this_goes_wrong(mix: str) -> None:
    check(seeds_of(mix, SCHEDULES))


@pytest.mark.parametrize("seed", range(len(MIXES)))
def test_a_seed_always_gives_the_same_schedule(seed: int) -> None:
    first: list[str] = []
    second: list[str] = []
    Schedule(seed, first.append).run()
    Schedule(seed, second.append).run()
    assert first == second
