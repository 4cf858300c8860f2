"""Schedules of the job service in which processes and servers die. See test_jobs.py."""

from __future__ import annotations

import pytest

from simulation.judge import PARTS, check, seeds_of


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mix", ["servers", "everything"])
def test_the_job_service_keeps_its_promises_when_this_goes_wrong(mix: str, part: int) -> None:
    check(seeds_of(mix, part))
