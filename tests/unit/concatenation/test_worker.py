"""Leases are kept while the database is, and are given back at once at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import grpc
import pytest
from psycopg import OperationalError
from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled

from steno.concatenation import worker as module
from steno.concatenation.domain import Lease, Session
from steno.concatenation.latest import Latest
from steno.concatenation.settings import Settings
from steno.concatenation.sweep import Sweeper
from steno.concatenation.worker import Workers

from .conftest import LEASE, SESSION, Ledger

SETTINGS = Settings.model_construct(
    session_lease_seconds=0.2,
    session_sweep_seconds=0.01,
    session_poll_seconds=0.01,
    session_max_worked_on=10,
    session_grace_hours=1,
    session_max_pause_seconds=1,
)


class Sessions:
    """A database with sessions that nobody works on, and how it was asked."""

    def __init__(self, count: int) -> None:
        self.free = [Lease(UUID(int=number + 1), 1) for number in range(count)]
        self.lost = False
        self.away = 0
        self.parked = 0
        self.renewed: list[int] = []
        self.handed_back: list[list[Lease]] = []

    def _answer(self) -> None:
        if self.away:
            self.away -= 1
            raise OperationalError("away")

    async def any_lost(self) -> bool:
        self._answer()
        return self.lost

    async def park_lost(self, longest_pause: timedelta) -> None:
        self.parked += 1

    async def claim(self, limit: int, lease: timedelta) -> list[tuple[Lease, Session]]:
        self._answer()
        found, self.free = self.free[:limit], self.free[limit:]
        return [(lease, replace(SESSION, session_id=lease.session_id)) for lease in found]

    async def renew(
        self, leases: Sequence[Lease], duration: timedelta
    ) -> tuple[set[UUID], set[UUID]]:
        self._answer()
        self.renewed.append(len(leases))
        held = {lease.session_id for lease in leases}
        return held, held

    async def end_leases(self, leases: Sequence[Lease]) -> None:
        self.handed_back.append(list(leases))


def bare_workers(store: Any, watchers: Any = None, settings: Settings = SETTINGS) -> Workers:
    """Workers without what nobody asks them for."""
    nothing: Any = None
    return Workers(store, nothing, nothing, watchers, nothing, nothing, nothing, settings)


def workers_of(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Workers whose work does not end."""

    async def endless(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Workers, "_lanes", endless)
    return bare_workers(sessions)


async def test_a_failure_to_renew_is_made_good_within_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RENEW_AGAIN_SECONDS", 0.0)
    sessions = Sessions(3)
    workers = workers_of(sessions, monkeypatch)
    await workers.claim()
    sessions.away = 2

    await workers.renew()

    assert sessions.renewed == [3]
    await workers.stop()


async def test_no_lease_is_lost_before_each_could_be_renewed_after_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    sessions = Sessions(0)
    workers = workers_of(sessions, monkeypatch)
    monkeypatch.setattr(workers._outages, "_clock", lambda: now)
    sessions.lost = True

    async def parked_after(seconds: float) -> int:
        nonlocal now
        until = now + seconds
        while now < until:
            now += 0.01
            await workers.claim()
        return sessions.parked

    assert await parked_after(0.15) == 0
    assert await parked_after(0.1) > 0
    sessions.away, sessions.parked = 1, 0
    with pytest.raises(OperationalError):
        await workers.claim()
    assert await parked_after(0.15) == 0
    assert await parked_after(0.1) > 0


async def test_all_leases_are_handed_back_in_one_statement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = Sessions(10)
    workers = workers_of(sessions, monkeypatch)
    await workers.claim()

    await workers.stop()

    (leases,) = sessions.handed_back
    assert len(leases) == 10


async def test_live_results_that_fail_each_time_end_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0

    class Failing:
        def __init__(self, *_: object) -> None:
            pass

        async def run(self) -> None:
            nonlocal tries
            tries += 1
            raise ValueError

    monkeypatch.setattr(module, "LiveTranscript", Failing)
    monkeypatch.setattr(module, "_LIVE_PAUSES", (0.0, 0.0))
    ledger = Ledger(SESSION)
    watchers = SimpleNamespace(publish=print)
    latest = Latest(SESSION, lambda: None)

    await bare_workers(ledger, watchers)._transcribe(LEASE, latest)

    assert tries == 3
    assert latest.session.live_done
    assert "Live results failed" in latest.session.live_error


@pytest.mark.parametrize("error", [LockNotAvailable, QueryCanceled, DeadlockDetected])
async def test_a_row_that_makes_the_database_wait_too_long_holds_up_no_other(
    error: type[OperationalError],
) -> None:
    done = list[int]()

    class Due:
        async def overdue(self) -> list[int]:
            return [1, 2]

        async def idle(self) -> list[int]:
            return []

        async def close_gap(self, session_id: int) -> bool:
            if session_id == 1:
                raise error
            done.append(session_id)
            return True

    settings = SETTINGS.model_copy(update={"session_retention_hours": 0})
    await Sweeper(cast(Any, Due()), lambda _: None, settings).sweep()

    assert done == [2]


@pytest.mark.parametrize(
    ("code", "reason", "longest"),
    [
        (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", timedelta(seconds=10)),
        (grpc.StatusCode.ALREADY_EXISTS, "DEPENDENCY_REFUSED", timedelta(seconds=300)),
    ],
)
async def test_a_service_that_says_no_is_not_asked_as_often_as_one_that_is_away(
    monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode, reason: str, longest: timedelta
) -> None:
    parked = list[tuple[object, ...]]()

    async def park(*values: object) -> None:
        parked.append(values)

    async def failing(*_: object) -> None:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(code, nothing, nothing, "no")

    monkeypatch.setattr(Workers, "_lanes", failing)
    settings = SETTINGS.model_copy(update={"session_max_pause_seconds": 300})
    workers = bare_workers(SimpleNamespace(park=park), settings=settings)
    await workers._try(LEASE, SESSION, asyncio.Event())

    message = f"A service that is needed answers {code.name}: no"
    assert parked == [(LEASE, reason, message, longest)]
