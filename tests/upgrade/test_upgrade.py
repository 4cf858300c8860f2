"""Version N beside N-1: an upgrade, and the way back, while jobs and a live session run."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import psycopg
import pytest

from live_sessions import cut
from platform_client import Client, fetched
from recordings import RATE, Samples, decoded, samples_of, wav
from steno.local.servers import LocalServers
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2
from versions import ROOT, Version, check_out, code_of, is_known, shared_addresses, work

CHUNK_SECONDS = 0.2

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


class Customers:
    """Who goes on using the platform meanwhile: with files, and with one live session."""

    def __init__(self, client: Client, speech: Samples) -> None:
        self._client = client
        self._speech = speech
        self._leaving = asyncio.Event()
        self.transcripts: list[transcript_pb2.Transcript] = []
        self.sent = b""

    def leave(self) -> None:
        """Tells them to come to an end."""
        self._leaving.set()

    async def send_files(self, seconds: int) -> None:
        """One file after the other; each must become a transcript."""
        part = self._speech[: seconds * RATE]
        while not self._leaving.is_set():
            self.transcripts.append(await self._client.transcribe("part.wav", wav(part)))

    async def speak(self) -> concatenation_pb2.Session:
        """Appends chunk after chunk to a session, at the pace of speech; returns it as it ended."""
        sessions = self._client.sessions
        config = concatenation_pb2.SessionConfig(
            encoding=concatenation_pb2.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE
        )
        opening = concatenation_pb2.CreateSessionRequest(config=config)
        session = (await sessions.CreateSession(opening, timeout=20)).session
        chunks = cut(self._speech.tobytes(), int(CHUNK_SECONDS * RATE) * 2)
        sequence = 0
        while not self._leaving.is_set():
            chunk = concatenation_pb2.Chunk(
                sequence=sequence, content=chunks[sequence % len(chunks)]
            )
            request = concatenation_pb2.AppendChunkRequest(
                session_id=session.session_id, chunk=chunk
            )
            await self._client.patiently(
                lambda r=request: sessions.AppendChunk(r, timeout=20)  # type: ignore[misc]
            )
            self.sent += chunk.content
            sequence += 1
            await asyncio.sleep(CHUNK_SECONDS)
        closing = concatenation_pb2.CloseSessionRequest(session_id=session.session_id)
        closed = await self._client.patiently(lambda: sessions.CloseSession(closing, timeout=120))
        return closed.session


async def test_nothing_fails_while_a_version_replaces_another_and_is_rolled_back(
    versions: list[Version],
) -> None:
    old, new = versions
    await old.migrate()
    await old.start()
    async with Client(shared_addresses(versions)) as client:
        customers = Customers(client, samples_of("ten-minutes.opus")[: 60 * RATE])
        async with asyncio.TaskGroup() as group:
            session = group.create_task(customers.speak())
            for seconds in (12, 45):
                group.create_task(customers.send_files(seconds))

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
            customers.leave()

        recorded = await recording(client, session.result())
        job = await client.end_of(session.result().job_id)

    assert all(transcript.segments for transcript in customers.transcripts)
    assert np.array_equal(recorded, np.frombuffer(customers.sent, np.int16))
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert [*old.errors(), *new.errors()] == []


async def recording(client: Client, session: concatenation_pb2.Session) -> Samples:
    """The samples of a session that has ended."""
    request = concatenation_pb2.GetRecordingRequest(
        session_id=session.session_id, form=concatenation_pb2.RECORDING_FORM_FILE
    )
    found = await client.sessions.GetRecording(request, timeout=60)
    return decoded(await fetched(found.url))


@pytest.mark.skipif(not BUF.exists(), reason="buf is not there; make check fetches it, with npm")
def test_the_contracts_say_all_that_they_said(tmp_path: Path) -> None:
    check_out(OLD, tmp_path, "proto")

    comparison = [str(BUF), "breaking", "proto", "--against", str(tmp_path / "proto")]
    done = subprocess.run(comparison, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
