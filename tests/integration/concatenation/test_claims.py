"""Replicas share the work, and keep what they have."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from urllib.request import urlopen

import psycopg
import pytest
from psycopg.rows import dict_row

from live_sessions import Service
from steno.concatenation.settings import Settings
from steno.local.ports import HOST, free_port
from waiting import eventually

from .conftest import StartService

SECOND = bytes(32_000)


async def worked_on(metrics: str) -> int:
    page = await asyncio.to_thread(lambda: urlopen(f"http://{metrics}/metrics").read().decode())
    (line,) = (line for line in page.splitlines() if line.startswith("steno_sessions_worked_on "))
    return round(float(line.split()[1]))


async def test_a_replica_takes_no_more_than_its_share_and_another_takes_the_rest(
    start_service: StartService,
) -> None:
    metrics = [f"{HOST}:{free_port()}" for _ in range(2)]
    settings = {"STENO_SESSION_MAX_WORKED_ON": "3", "STENO_SESSION_LEASE_SECONDS": "600"}
    first = await start_service(STENO_METRICS_LISTEN=metrics[0], **settings)
    for _ in range(5):
        session = await first.open()
        await first.append(session.session_id, 0, SECOND)

    async def works_on(replica: int, count: int) -> bool:
        seen = await worked_on(metrics[replica])
        assert seen == count
        return True

    await eventually(lambda: works_on(0, 3))
    await start_service(STENO_METRICS_LISTEN=metrics[1], **settings)
    await eventually(lambda: works_on(1, 2))
    assert await worked_on(metrics[0]) == 3


@pytest.fixture
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed as often as short ones, and outlive any pause of this machine."""
    monkeypatch.setattr(Settings, "session_lease", timedelta(minutes=10))


@pytest.mark.usefixtures("long_leases")
async def test_a_row_that_is_locked_keeps_no_other_lease_from_being_renewed(
    service: Service, environment: dict[str, str]
) -> None:
    sessions = [(await service.open()).session_id for _ in range(3)]
    for session_id in sessions:
        await service.append(session_id, 0, SECOND)
    url = environment["STENO_POSTGRES_URL"]

    async def leases(least: datetime | None = None) -> dict[str, tuple[int, datetime]]:
        """Attempt and end of those that are not locked, once all end later than a moment."""

        def look() -> dict[str, tuple[int, datetime]]:
            with psycopg.connect(url, row_factory=dict_row) as db:
                found = db.execute(
                    "SELECT session_id, attempt, lease_until FROM concatenation.sessions"
                    " WHERE lease_until > now() AND session_id <> %s",
                    [sessions[0]],
                )
                return {str(r["session_id"]): (r["attempt"], r["lease_until"]) for r in found}

        async def renewed() -> dict[str, tuple[int, datetime]] | None:
            seen = await asyncio.to_thread(look)
            ends = [end for _, end in seen.values()]
            return seen if len(seen) == 2 and (least is None or min(ends) > least) else None

        return await eventually(renewed)

    before = await leases()
    async with await psycopg.AsyncConnection.connect(url) as db:
        await db.execute(
            "SELECT 1 FROM concatenation.sessions WHERE session_id = %s FOR UPDATE", [sessions[0]]
        )
        seen = before
        for _ in range(3):
            seen = await leases(max(end for _, end in seen.values()))
        await db.rollback()

    assert {key: attempt for key, (attempt, _) in seen.items()} == {
        key: attempt for key, (attempt, _) in before.items()
    }
