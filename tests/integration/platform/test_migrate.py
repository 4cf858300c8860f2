"""Migrations go on beside who reads and writes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import ProgrammingError

from conftest import create_database, database_url
from steno.local.servers import LocalServers
from steno.platform import migrate
from waiting import eventually

REVISION = """
from alembic import op
revision, down_revision = "{number}", {before}
def upgrade():
    {statements}
"""
CONCURRENTLY = """with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS job.numbers_n")
        op.execute("CREATE INDEX CONCURRENTLY numbers_n ON job.numbers (n)")"""

Revise = Callable[..., None]


@pytest.fixture
def database(servers: LocalServers) -> Iterator[str]:
    """An empty database."""
    name = f"test_{uuid.uuid4().hex}"
    create_database(servers.postgres.url, name)
    yield database_url(servers.postgres.url, name)
    with psycopg.connect(servers.postgres.url, autocommit=True) as db:
        db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def revise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Revise:
    """Writes the revisions of a service; each is an SQL statement, or lines of Python."""
    monkeypatch.setattr(migrate, "_versions", lambda service: str(tmp_path))
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.1)

    def write(*revisions: str) -> None:
        for number, revision in enumerate(revisions, 1):
            statements = revision if "op." in revision else f"op.execute({revision!r})"
            before = repr(str(number - 1)) if number > 1 else None
            (tmp_path / f"{number}.py").write_text(
                REVISION.format(number=number, before=before, statements=statements)
            )

    return write


def ask(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as db:
        return db.execute(statement).fetchall()


async def test_writers_do_not_wait_behind_a_migration_that_waits_for_a_reader(
    database: str, revise: Revise, capfd: pytest.CaptureFixture[str]
) -> None:
    revise("CREATE TABLE job.numbers (n int)", "ALTER TABLE job.numbers ADD COLUMN m int")
    migrate.migrate(database, "job", "1")

    async with await psycopg.AsyncConnection.connect(database) as reader:
        await reader.execute("SELECT FROM job.numbers")  # it holds its lock until it ends
        migrating = asyncio.create_task(asyncio.to_thread(migrate.migrate, database, "job"))
        told = ""

        def tried() -> bool:
            nonlocal told
            told += capfd.readouterr().err
            return "will try again" in told

        await eventually(tried)
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
            await writer.execute("SET lock_timeout = '30s'")
            await writer.execute("INSERT INTO job.numbers VALUES (1)")
        assert not migrating.done()
    await migrating

    assert ask(database, "SELECT n, m FROM job.numbers") == [(1, None)]


def test_a_revision_that_fails_leaves_those_before_it(database: str, revise: Revise) -> None:
    revise("CREATE TABLE job.numbers (n int)", "CREATE TABLE job.numbers (n int)")

    with pytest.raises(ProgrammingError):
        migrate.migrate(database, "job")

    assert ask(database, "SELECT version_num FROM job.schema_version") == [("1",)]


async def test_an_index_is_built_concurrently_though_another_migration_waits(
    database: str, revise: Revise
) -> None:
    revise("CREATE TABLE job.numbers (n int)", CONCURRENTLY)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(asyncio.to_thread(migrate.migrate, database, "job"))

    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'job.numbers_n'::regclass"
    assert ask(database, valid) == [(True,)]
