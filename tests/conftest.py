"""Real Postgres, NATS and S3, one set for each test process; each test begins with them empty."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nats
import psycopg
import pytest
from nats.js.errors import NotFoundError
from psycopg import sql
from xdist.scheduler import LoadFileScheduling

from builtin_model import ENVIRONMENT
from folders import server_folder
from rows import Rows, rows_of
from steno.local.servers import LocalServers
from steno.platform.messaging import EVENTS, PREPARE, TASKS
from steno.platform.migrate import SCHEMAS, migrate
from steno.platform.objects import ObjectStore, open_store
from steno.platform.settings import S3Settings

# In a background job of a shell SIGINT is ignored, and would be by all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

E2E = "tests/e2e/"
KILLS = "tests/e2e/test_kills.py"
SIMULATION = "tests/simulation/"

TEMPLATE = "template_steno"
BUCKET = "steno"

PROCESS = {
    "STENO_LISTEN": "127.0.0.1:0",
    "STENO_METRICS_LISTEN": "",
    "STENO_LOG_FORMAT": "text",
    **ENVIRONMENT,
}
"""What makes a service fit for a test: free ports, logs for people, and the quick model."""


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """The tests of a file run in one process, which shares what they set up; so do all of e2e/,
    where a set-up is a whole platform, but for those that kill one. Those of the simulation share
    nothing."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(SIMULATION):
            return nodeid
        if nodeid.startswith(E2E) and not nodeid.startswith(KILLS):
            return E2E
        return super()._split_scope(nodeid)  # type: ignore[no-any-return]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """The hook of pytest-xdist."""
    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """What was imported stays: looking through it for garbage takes a tenth of some tests' time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in one line what could not run on this machine, and what it takes."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
    )
    if reasons:
        told = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        terminalreporter.write_line(f"not run here, tests and why: {told}", yellow=True)


@pytest.fixture
async def unseen_errors() -> AsyncIterator[list[dict[str, object]]]:
    """What asyncio says of errors that nobody has seen, in this test: what others left is gone."""
    told: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    gc.collect()
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder for what the tests of this process share."""
    with server_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
async def servers(short_folder: Path) -> AsyncIterator[LocalServers]:
    """The servers. A test that kills one starts it again."""
    async with LocalServers(short_folder, durable=False) as servers:
        create_database(servers.postgres.url, TEMPLATE)
        for service in SCHEMAS:
            migrate(database_url(servers.postgres.url, TEMPLATE), service)
        yield servers


@pytest.fixture
async def environment(servers: LocalServers) -> AsyncIterator[dict[str, str]]:
    """The environment of a service on servers that hold nothing yet; also set in this process."""
    async with _emptied(servers) as environment:
        yield environment


@pytest.fixture
def rows(environment: dict[str, str]) -> Rows:
    """Runs SQL in the service's database."""
    return rows_of(environment["STENO_POSTGRES_URL"])


@pytest.fixture(scope="module")
async def shared_environment(servers: LocalServers) -> AsyncIterator[dict[str, str]]:
    """The same, for tests of one file that share what they set up."""
    async with _emptied(servers) as environment:
        yield environment


@asynccontextmanager
async def _emptied(servers: LocalServers) -> AsyncIterator[dict[str, str]]:
    name = f"test_{uuid.uuid4().hex}"
    create_database(servers.postgres.url, name, TEMPLATE)
    values = servers.environment | PROCESS
    values["STENO_POSTGRES_URL"] = database_url(servers.postgres.url, name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable, value in values.items():
            monkeypatch.setenv(variable, value)
        await remove_streams(servers.nats.url)
        async with open_store(S3Settings()) as objects:
            await objects.remove_prefix("")
            await abort_uploads(objects)
        yield {**os.environ, **values}
    with psycopg.connect(servers.postgres.url, autocommit=True) as db:
        db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def create_database(url: str, name: str, template: str = "template1") -> None:
    """Copies the template's files: on an empty database half of what the default takes."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )


def database_url(url: str, name: str) -> str:
    """The same server, another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def abort_uploads(objects: ObjectStore) -> None:
    """Removes multipart uploads that a test has left open, by killing a service for example."""
    open_uploads = await asyncio.to_thread(objects._client._list_multipart_uploads, BUCKET)
    for upload in open_uploads.uploads:
        assert upload.upload_id is not None
        await objects.abort_multipart(upload.object_name, upload.upload_id)


async def remove_streams(url: str) -> None:
    connection = await nats.connect(url)
    for stream in (TASKS, PREPARE, EVENTS):
        try:
            await connection.jetstream(timeout=60).delete_stream(stream)
        except NotFoundError:
            continue
    await connection.close()
