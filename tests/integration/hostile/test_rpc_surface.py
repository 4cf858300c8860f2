"""Thousands of calls that hypothesis thinks of: each ends as its contract says.

`STENO_FUZZ_CALLS` makes it more of them, other ones each time; `STENO_FUZZ_SEED` makes those of a
seed again, which is told with what fails.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, seed, settings

from all_services import Services, Things
from calling import Call
from contract import ANYWHERE, documented, methods, name_of
from request_strategies import scripts
from steno.platform.errors import Failure

FEW = 2000
CALLS = int(os.environ.get("STENO_FUZZ_CALLS", FEW))
ANY_SEED = 1 if CALLS == FEW else int.from_bytes(os.urandom(4))
SEED = int(os.environ.get("STENO_FUZZ_SEED", ANY_SEED))
CALLS_A_SCRIPT = 100
AT_ONCE = 4

SILENCE = 0.05
"""Seconds without an answer after which a stream is left; what fails later is not seen."""

CLEARED_AFTER = 10
"""Scripts after which all that they have made is removed."""

pytestmark = [
    pytest.mark.timeout(max(900, CALLS)),
    # It would be told instead of what failed: a script may hold a file's bytes.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

REPLAY = f"STENO_FUZZ_SEED={SEED} STENO_FUZZ_CALLS={CALLS}"

made: Counter[str] = Counter()
"""How often each RPC was called, and how that ended."""


def is_documented(call: Call, failure: Failure) -> bool:
    """Whether a call may end so."""
    if failure.code in ANYWHERE:
        return True
    errors = documented()[f"steno.v1.{call.method}"]
    reasons = errors.get(failure.code)
    return reasons is not None and (not reasons or failure.reason in reasons)


@settings(
    max_examples=max(1, CALLS // CALLS_A_SCRIPT),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@seed(SEED)
@given(script=scripts(CALLS_A_SCRIPT))
async def test_each_call_ends_as_its_contract_says(services: Services, script: list[Call]) -> None:
    things, turns = Things(services), asyncio.Semaphore(AT_ONCE)

    async def make(call: Call) -> None:
        async with turns:
            failure = await call.make(services.channels, things, SILENCE)
        made[call.method] += 1
        made["OK" if failure is None else failure.code.name] += 1
        assert failure is None or is_documented(call, failure), (failure, call, REPLAY)

    await asyncio.gather(*map(make, script))
    made["scripts"] += 1
    if made["scripts"] % CLEARED_AFTER == 0:
        await services.clear()


async def test_the_services_are_ready_afterwards(services: Services) -> None:
    assert await services.ready() == list(services.channels)


def test_so_many_calls_were_made_and_every_rpc_was_called() -> None:
    assert (sum(made.values()) - made["scripts"]) // 2 >= CALLS
    assert set(made) >= set(map(name_of, methods()))
    print(REPLAY, made)
