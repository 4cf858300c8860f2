"""A standby of Postgres, which takes over when the first server dies for good.

It is a synchronous one: a commit is told once it is on both. What an asynchronous one has not
got when it takes over is lost, and no service can make up for that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from faults.system import System
from steno.local.child import Child
from steno.local.ports import free_port
from steno.local.servers import START_SECONDS, Postgres
from waiting import eventually


class Standby(Postgres):
    """A Postgres that follows the one of a system."""

    name = "standby"

    def __init__(self, system: System) -> None:
        servers = system.running.platform.servers
        self._first = servers.postgres
        self._system = system
        folder = self._first.folder.parent
        super().__init__(folder, {self.name: free_port()}, servers.secrets)

    async def prepare(self) -> None:
        """Copies the first one, and notes where that is."""
        self.folder.mkdir()
        self._own(self.folder)
        command = self.child.command
        copy = [
            str(Path(command.arguments[0]).with_name("pg_basebackup")),
            *("--dbname", self._first.url, "--pgdata", str(self.folder / "data")),
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
        ]
        await Child("pg_basebackup", replace(command, arguments=copy)).done(START_SECONDS)

    async def is_followed(self) -> bool:
        """Whether commits wait for it."""
        try:
            states = await self._system.rows("SELECT sync_state FROM pg_stat_replication")
        except psycopg.OperationalError:  # the first one is about to be there again
            return False
        return states == [{"sync_state": "sync"}]

    async def take_over(self) -> None:
        """The first one dies. It is started again, and nobody asks it any more."""
        await eventually(self.is_followed)
        self._system.running.kill(self._first.name)
        for link in self._system.links_of(self._first.name):
            link.target = self.port
        self._system.database_url = self.url
        assert await self._system.rows("SELECT pg_promote()") == [{"pg_promote": True}]


@asynccontextmanager
async def standing_by(system: System) -> AsyncIterator[Standby]:
    """Starts a standby, for which all commits wait from then on."""
    # Set before it is copied: after each fault on the first one, it is back at once.
    await system.rows("ALTER SYSTEM SET wal_retrieve_retry_interval = '200ms'")
    standby = Standby(system)
    try:
        await standby.start()
        await system.rows("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await system.rows("SELECT pg_reload_conf()")
        await eventually(standby.is_followed)
        yield standby
    finally:
        await standby.stop()
