"""Schedules of the job service in which processes and servers die. See test_jobs.py."""

from __future__ import annotations

import pytest

from simulation.judge import check, seeds_of
from simulation.test_jobs import SCHEDULES


@pytest.mark.parametrize("mix", ["servers", "everything"])
def test_the_job_service_keeps_its_promises_when_this_goes_wrong(mix: str) -> None:
    check(seeds_of(mix, SCHEDULES))
