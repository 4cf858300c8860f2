"""Version N beside N-1: an upgrade, and the way back, while jobs and a live session run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from customers import customers_of
from platform_client import Client
from steno.local.servers import LocalServers
from versions import ROOT, Version, check_out, code_of, is_known, shared_addresses, work

OLD = os.environ.get("OLD_VERSION", "")

BUF = ROOT / "node_modules" / ".bin" / "buf"

pytestmark = [
    pytest.mark.skipif(not OLD, reason="no older version named: make upgrade-test OLD=<git ref>"),
    pytest.mark.skipif(bool(OLD) and not is_known(OLD), reason=f"this clone has no {OLD}"),
    pytest.mark.timeout(900),
]


@pytest.fixture
async def versions(servers: LocalServers, short_folder: Path) -> AsyncIterator[list[Version]]:
    """The old one and this one, on a database without any schema."""
    with psycopg.connect(servers.postgres.url, autocommit=True) as db:
        db.execute("CREATE DATABASE upgrade")
    (folder := short_folder / "old").mkdir()
    old = Version("N-1", code_of(OLD, folder), short_folder / "logs-old")
    new = Version("N", ROOT / "services", short_folder / "logs-new")
    addresses = shared_addresses([old, new])
    environment = {
        **os.environ,
        **servers.environment,
        **{f"STENO_{name.upper()}_ADDRESS": address for name, address in addresses.items()},
        "STENO_POSTGRES_URL": servers.postgres.url.rpartition("/")[0] + "/upgrade",
        "STENO_LOG_FORMAT": "json",
        "STENO_SESSION_LEASE_SECONDS": "3",
    }
    async with AsyncExitStack() as stack:
        for version in (old, new):
            version.join(environment)
            stack.push_async_callback(version.stop)
        yield [old, new]
    print(*old.errors(), *new.errors(), sep="\n")  # shown where the test has failed


async def test_nothing_fails_while_a_version_replaces_another_and_is_rolled_back(
    versions: list[Version],
) -> None:
    old, new = versions
    await old.migrate()
    await old.start()
    async with Client(shared_addresses(versions)) as client, customers_of(client):
        await work(old)
        await new.migrate()
        await work(old)
        await new.start()
        await work(old, new)
        await old.stop()
        await work(new)
        await old.start()
        await work(old, new)
        await new.stop()
        await work(old)

    assert [*old.errors(), *new.errors()] == []


@pytest.mark.skipif(not BUF.exists(), reason="buf is not there; make check fetches it, with npm")
def test_the_contracts_say_all_that_they_said(tmp_path: Path) -> None:
    check_out(OLD, tmp_path, "proto")

    comparison = [str(BUF), "breaking", "proto", "--against", str(tmp_path / "proto")]
    done = subprocess.run(comparison, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
