"""Schedules of live sessions, in which one thing or another goes wrong."""

from __future__ import annotations

import pytest

from simulation.judge import SESSIONS
from simulation.session_schedule import SessionSchedule


@pytest.mark.parametrize("part", range(SESSIONS.parts))
@pytest.mark.parametrize("mix", SessionSchedule.mixes)
def test_live_sessions_keep_their_promises_when_this_goes_wrong(mix: str, part: int) -> None:
    SESSIONS.check(SESSIONS.seeds_of(mix, part))


@pytest.mark.parametrize("seed", range(len(SessionSchedule.mixes)))
def test_a_seed_always_gives_the_same_schedule(seed: int) -> None:
    assert SESSIONS.traced(seed) == SESSIONS.traced(seed)
