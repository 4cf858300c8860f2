"""Schedules of the job service, in which one thing or another goes wrong."""

from __future__ import annotations

import pytest

from simulation.job_schedule import JobSchedule
from simulation.judge import JOBS


@pytest.mark.parametrize("part", range(JOBS.parts))
@pytest.mark.parametrize("mix", JobSchedule.mixes)
def test_the_job_service_keeps_its_promises_when_this_goes_wrong(mix: str, part: int) -> None:
    JOBS.check(JOBS.seeds_of(mix, part))


@pytest.mark.parametrize("seed", range(len(JobSchedule.mixes)))
def test_a_seed_always_gives_the_same_schedule(seed: int) -> None:
    assert JOBS.traced(seed) == JOBS.traced(seed)
