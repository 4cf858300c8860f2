"""The short form: a platform with short leases, harmed for a while by faults that a seed draws."""

from __future__ import annotations

import pytest

from faults.promises import lines
from faults.system import FULL, SMALL
from faults.trial import MOVES_SECONDS, Trial

SEED = 20
SECONDS = 18
FEWEST_BITES = 5
"""Of the faults that are drawn in this time. How many bite is up to the machine."""


@pytest.mark.timeout(300)
async def test_all_promises_hold_though_processes_links_and_servers_fail() -> None:
    outcome = await Trial(SEED, SECONDS, SMALL, uploaders=3, speakers=2).run()

    assert lines(outcome.found) == ""
    assert sum(bool(strike.bite) for strike in outcome.strikes) >= FEWEST_BITES
    assert outcome.jobs
    assert outcome.chunks
    assert outcome.moves_seconds < MOVES_SECONDS


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(
            Trial(SEED, SECONDS, FULL, uploaders=3, speakers=2, halts=True),
            id="all but one of each kind stand still for good",
        ),
        pytest.param(
            Trial(SEED, SECONDS, SMALL, uploaders=3, speakers=2, fails_over=True),
            id="a standby of Postgres takes over",
        ),
    ],
)
async def test_all_promises_hold_though_in_the_end(trial: Trial) -> None:
    outcome = await trial.run()

    assert lines(outcome.found) == ""
    assert outcome.jobs
    assert outcome.chunks
