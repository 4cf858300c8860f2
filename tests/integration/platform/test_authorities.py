"""Servers whose certificates are from an authority of one's own, which the environment names."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from psycopg.pq import Conninfo
from pydantic import SecretStr

from certificates import make_certificate, needs_openssl
from steno.local.ports import HOST, free_port
from steno.local.servers import LocalServers
from steno.platform.ending import ended
from steno.platform.errors import Unavailable
from steno.platform.messaging import connect
from steno.platform.objects import open_store
from steno.platform.settings import NatsSettings, S3Settings
from waiting import listening

pytestmark = needs_openssl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `tls.crt`, which is its own authority, and `tls.key`."""
    make_certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    return tmp_path


@pytest.fixture
async def s3(
    servers: LocalServers, environment: dict[str, str], folder: Path
) -> AsyncIterator[str]:
    """The real store, behind TLS; its address."""
    meetings: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        meeting = asyncio.current_task()
        assert meeting is not None
        meetings.add(meeting)
        inner_reader, inner_writer = await asyncio.open_connection(HOST, servers.s3.port)
        try:
            await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer))
        finally:
            for end in (writer, inner_writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server = await asyncio.start_server(meet, HOST, 0, ssl=context)
    yield f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
    server.close()
    await ended(*meetings)


async def test_s3_is_believed_by_the_authorities_that_the_environment_names(
    s3: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(S3Settings(s3_endpoint=s3)) as store:
        with pytest.raises(Unavailable):
            await store.check()

    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "tls.crt"))
    async with open_store(S3Settings(s3_endpoint=s3)) as store:
        await store.put("key", b"value")
        assert await store.get("key") == b"value"


@pytest.fixture
async def nats(folder: Path) -> AsyncIterator[str]:
    """NATS that speaks only TLS, and only to those who show a certificate; its address."""
    port = free_port()
    config = folder / "nats.conf"
    files = ", ".join(
        f'{option}: "{folder / name}"'
        for option, name in (
            ("cert_file", "tls.crt"),
            ("key_file", "tls.key"),
            ("ca_file", "tls.crt"),
        )
    )
    config.write_text(f'listen: "{HOST}:{port}"\ntls: {{ {files}, verify: true }}\n')
    program = Path(sys.executable).with_name("nats-server")
    server = await asyncio.create_subprocess_exec(
        program, "--config", config, stderr=asyncio.subprocess.DEVNULL
    )
    await listening(f"{HOST}:{port}")
    yield f"nats://{HOST}:{port}"
    server.kill()
    await server.wait()


async def is_connected(settings: NatsSettings) -> bool:
    async with connect(settings, "test") as messaging:
        try:
            async with asyncio.timeout(3):
                await messaging.connected()
        except TimeoutError:
            return False
        return True


async def test_nats_is_shown_a_certificate_where_it_asks_for_one(
    nats: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = NatsSettings(nats_url=SecretStr(nats))
    shown = unknown.model_copy(
        update={
            "nats_tls_certificate": str(folder / "tls.crt"),
            "nats_tls_key": str(folder / "tls.key"),
        }
    )

    assert not await is_connected(shown)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "tls.crt"))
    assert not await is_connected(unknown)
    assert await is_connected(shown)


@pytest.fixture
def root_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PGSSLROOTCERT", str(folder / "tls.crt"))
    return str(folder / "tls.crt")


def test_libpq_takes_the_authorities_of_postgres_from_the_environment(root_file: str) -> None:
    known = {option.keyword: option.val for option in Conninfo.get_defaults()}

    assert known[b"sslrootcert"] == root_file.encode()
