"""What the simulation's silence is worth: it finds bugs that are known, by what they break."""

from __future__ import annotations

import pytest

from simulation import job_planted, session_planted
from simulation.judge import JOBS, SESSIONS, Kind
from simulation.planted import Bug

pytestmark = pytest.mark.long

BUDGET = 1500
"""Schedules, of the bug's mix if it has one, within which each is found: most within a hundred."""


def _find(kind: Kind, bug: Bug, patch: pytest.MonkeyPatch) -> None:
    bug.plant(patch)
    promises = {promise.__name__ for promise in bug.breaks}
    mixes = kind.schedule.mixes
    first, step = (mixes.index(bug.mix), len(mixes)) if bug.mix else (0, 1)
    for seed in range(first, BUDGET * step, step):
        if promises & {broken.promise for broken in kind.judged(seed)}:
            return
    pytest.fail(f"{BUDGET} schedules did not show that {bug.name}")


@pytest.mark.parametrize("bug", job_planted.BUGS, ids=[bug.name for bug in job_planted.BUGS])
def test_it_is_noticed_of_jobs_that(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    _find(JOBS, bug, monkeypatch)


@pytest.mark.parametrize(
    "bug", session_planted.BUGS, ids=[bug.name for bug in session_planted.BUGS]
)
def test_it_is_noticed_of_live_sessions_that(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    _find(SESSIONS, bug, monkeypatch)
