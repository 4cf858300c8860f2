"""Who goes on using a platform while it is upgraded, moved or harmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from live_sessions import cut
from platform_client import Client, fetched
from recordings import RATE, Samples, decoded, samples_of, wav
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2

CHUNK_SECONDS = 0.2


class Customers:
    """Some send files, one speaks live. They repeat what is UNAVAILABLE; all else is a failure."""

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


@asynccontextmanager
async def customers_of(client: Client) -> AsyncIterator[Customers]:
    """Has customers use a platform for as long as the block runs.

    Fails if a call of theirs fails for good, a file becomes no transcript, or the live recording is
    not what was sent.
    """
    customers = Customers(client, samples_of("ten-minutes.opus")[: 60 * RATE])
    async with asyncio.TaskGroup() as group:
        speaking = group.create_task(customers.speak())
        for seconds in (12, 45):
            group.create_task(customers.send_files(seconds))
        yield customers
        customers.leave()
    session = speaking.result()
    recorded = await _recording(client, session)
    job = await client.end_of(session.job_id)
    assert all(transcript.segments for transcript in customers.transcripts)
    assert np.array_equal(recorded, np.frombuffer(customers.sent, np.int16))
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED


async def _recording(client: Client, session: concatenation_pb2.Session) -> Samples:
    """The samples of a session that has ended."""
    request = concatenation_pb2.GetRecordingRequest(
        session_id=session.session_id, form=concatenation_pb2.RECORDING_FORM_FILE
    )
    found = await client.sessions.GetRecording(request, timeout=60)
    return decoded(await fetched(found.url))
