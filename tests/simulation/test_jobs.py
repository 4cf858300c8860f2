"""Schedules of the job service, in which one thing or another goes wrong."""

from __future__ import annotations

import pytest

from simulation.job_schedule import MIXES, Schedule
from simulation.judge import PARTS, check, seeds_of


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mix", MIXES)
def test_the_job_service_keeps_its_promises_when_this_goes_wrong(mix: str, part: int) -> None:
    check(seeds_of(mix, part))


@pytest.mark.parametrize("seed", range(len(MIXES)))
def test_a_seed_always_gives_the_same_schedule(seed: int) -> None:
    first: list[str] = []
    second: list[str] = []
    Schedule(seed, first.append).run()
    Schedule(seed, second.append).run()
    assert first == second
