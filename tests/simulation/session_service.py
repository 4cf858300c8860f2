"""Replicas of the concatenation service: its own code, on servers in memory.

What is not its own here, or is left out: live results are those of a stand-in that hears at once
(`LiveTranscript`), files among chunks are decoded by one that only reads them (`decoded`), and a
container in pieces, playlists and segments for players (`hls`), and metrics are not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np

from simulation.bus import Bus, Messaging
from simulation.calls import Upstream
from simulation.database import Pool, Server
from simulation.loop import Loop
from simulation.neighbours import Channel
from simulation.objects import Bucket, ObjectStore
from simulation.service import Service
from steno.audio import AudioRejected, Reason
from steno.concatenation.domain import Lease
from steno.concatenation.finish import Finisher
from steno.concatenation.ingest import Ingest
from steno.concatenation.latest import Latest
from steno.concatenation.recent import RecentObjects
from steno.concatenation.recording import Recordings
from steno.concatenation.room import Arrivals, Room
from steno.concatenation.servicer import ConcatenationServicer
from steno.concatenation.sessions import Sessions
from steno.concatenation.settings import Settings
from steno.concatenation.store import Store
from steno.concatenation.sweep import Sweeper
from steno.concatenation.watch import Watchers
from steno.concatenation.worker import Workers
from steno.platform.removals import Remover
from steno.platform.tenancy import tenant_in
from steno.v1 import concatenation_pb2 as pb

LEASE = 3.6
SWEEP = 1.2
POLL = 1.5
GRACE = 0.0
LONGEST_PAUSE = 4.0
CLOSE = 2.0
TRIM = 6.0
REMOVE = 1.5
URL_SECONDS = 4

HOUR = 11.0
"""Seconds that stand for one: longer than whoever has lost the right to write goes on writing."""

UNDECODABLE = b"X"
"""What the bytes of a file begin with that is no audio; of any other the rest are its samples."""

NOT_ASKED: Any = None


class Request:
    """The context of a call: what the servicer reads its requests from."""

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        self._read = read

    async def read(self) -> Any:
        message = await self._read()
        return grpc.aio.EOF if message is None else message


class Replica(Service):
    """A process of the concatenation service: what `steno.concatenation.__main__` wires."""

    sweep = SWEEP
    listening = 3

    def __init__(
        self,
        name: str,
        loop: Loop,
        database: Server,
        bus: Bus,
        bucket: Bucket,
        neighbours: Channel,
        *,
        connections: int,
        limits: dict[str, Any],
    ) -> None:
        """Wires it.

        Args:
            name: of the process.
            loop: runs it.
            database: where its tables are.
            bus: the message server.
            bucket: the object store.
            neighbours: the services that it calls.
            connections: to the database, at most.
            limits: settings that are not always the same.
        """
        settings = SETTINGS.model_copy(update=limits)
        super().__init__(name, loop)
        pool: Any = Pool(database, connections)
        messaging: Any = Messaging(bus)
        s3: Any = ObjectStore(bucket)
        others: Any = neighbours
        store, objects = Store(pool), RecentObjects(s3)
        recordings = Recordings(store, objects)
        watchers = Watchers(store, messaging, settings.session_max_viewers)
        self._workers = workers = Workers(
            store,
            objects,
            recordings,
            watchers,
            Finisher(store, recordings, others, others),
            NOT_ASKED,
            NOT_ASKED,
            settings,
        )
        sweeper = Sweeper(store, workers.notify, settings)
        sessions = Sessions(store, recordings, NOT_ASKED, watchers, workers.notify, settings)
        room = settings.session_max_bytes_in_flight
        ingest = Ingest(store, objects, watchers, workers.notify, Room(room))
        self._servicer = ConcatenationServicer(sessions, store, ingest, watchers, Arrivals(room))
        add = self._add
        add("receive", watchers.receive, every=POLL, within=None)
        add("relay", watchers.relay, every=POLL, woken=workers.changed.waiter())
        add("deliver", watchers.deliver, every=10 * POLL, woken=watchers.woken)
        add("poll", watchers.poll, every=POLL, woken=workers.changed.waiter())
        add("claim", workers.claim, every=SWEEP, woken=workers.unclaimed)
        add("renew", workers.renew, every=LEASE / 3)
        add("sweep", sweeper.sweep, every=SWEEP)
        add("remove", Remover(store.removals, s3).sweep, every=REMOVE)
        add("trim", sweeper.trim, every=TRIM)

    async def stop(self) -> None:
        """Ends as on SIGTERM: what is worked on is handed back."""
        for task in self._tasks:
            task.cancel()
        await self._workers.stop()
        self.process.kill()

    # Calls

    async def create(
        self, request: pb.CreateSessionRequest, tenant: str
    ) -> pb.CreateSessionResponse:
        with tenant_in(tenant):
            return await self._servicer.CreateSession(request, NOT_ASKED)

    def stream(self, requests: Upstream[Any]) -> AsyncIterator[pb.StreamAudioResponse]:
        context: Any = Request(requests.read)
        return self._servicer.StreamAudio(NOT_ASKED, context)

    async def append(self, request: pb.AppendChunkRequest) -> pb.AppendChunkResponse:
        async def read() -> pb.AppendChunkRequest:
            return request

        context: Any = Request(read)
        return await self._servicer.AppendChunk(NOT_ASKED, context)

    def watch(self, session_id: str, after: int) -> AsyncIterator[pb.WatchSessionResponse]:
        request = pb.WatchSessionRequest(session_id=session_id, after_revision=after)
        return self._servicer.WatchSession(request, NOT_ASKED)

    async def get(self, session_id: str) -> pb.GetSessionResponse:
        return await self._servicer.GetSession(
            pb.GetSessionRequest(session_id=session_id), NOT_ASKED
        )

    async def page(self, tenant: str, size: int, token: str) -> pb.ListSessionsResponse:
        request = pb.ListSessionsRequest(page_size=size, page_token=token)
        with tenant_in(tenant):
            return await self._servicer.ListSessions(request, NOT_ASKED)

    async def close(self, session_id: str) -> pb.CloseSessionResponse:
        return await self._servicer.CloseSession(
            pb.CloseSessionRequest(session_id=session_id), NOT_ASKED
        )

    async def recording(self, session_id: str) -> pb.GetRecordingResponse:
        request = pb.GetRecordingRequest(session_id=session_id, form=pb.RECORDING_FORM_FILE)
        return await self._servicer.GetRecording(request, NOT_ASKED)

    async def delete(self, session_id: str) -> pb.DeleteSessionResponse:
        return await self._servicer.DeleteSession(
            pb.DeleteSessionRequest(session_id=session_id), NOT_ASKED
        )


SETTINGS = Settings.model_construct(
    session_max_open=1000,
    session_tenant_max_open=500,
    session_max_viewers=1000,
    session_max_bytes_in_flight=32 * 2**20,
    session_grace_hours=GRACE / 3600,
    session_retention_hours=0.0,
    session_max_worked_on=1000,
    session_lease_seconds=LEASE,
    session_max_pause_seconds=LONGEST_PAUSE,
    session_sweep_seconds=SWEEP,
    session_poll_seconds=POLL,
    session_close_seconds=CLOSE,
    recording_url_seconds=URL_SECONDS,
)


class LiveTranscript:
    """Stands in for `steno.concatenation.live.LiveTranscript`: tells what it has read."""

    def __init__(
        self,
        lease: Lease,
        store: Store,
        recordings: Recordings,
        latest: Latest,
        vad: Any,
        windows: Any,
        publish: Callable[[pb.WatchSessionResponse], Awaitable[None]],
    ) -> None:
        self._lease = lease
        self._store = store
        self._recordings = recordings
        self._latest = latest
        self._publish = publish

    async def run(self) -> None:
        at = self._latest.session.live_frame_count
        while not self._latest.session.live_done:
            session = await self._latest.until(
                lambda s, at=at: s.frame_count > at or s.drained  # type: ignore[misc]
            )
            if session.frame_count == at:
                self._latest.update(await self._store.end_live(self._lease))
                return
            begin, at = at, session.frame_count
            samples = await self._recordings.read(session, begin, at)
            result = pb.LiveResult(is_final=True)
            result.segment.text = f"{self._lease.attempt} {samples.hex()}"
            if session.config.interim_results:
                await self._publish(pb.WatchSessionResponse(interim=result))
            self._latest.update(await self._store.add_results(self._lease, [result], at, "en"))


@asynccontextmanager
async def decoded(
    source: Callable[[int, int], Awaitable[bytes]], size: int, limits: Any
) -> AsyncIterator[AsyncIterator[np.ndarray[Any, Any]]]:
    """Stands in for `steno.audio.decode`, of whole files, as `decode` calls it."""

    content = await source(0, size)

    async def blocks() -> AsyncIterator[np.ndarray[Any, Any]]:
        if content.startswith(UNDECODABLE):
            raise AudioRejected(Reason.UNSUPPORTED_FORMAT, "it is no audio")
        samples = np.frombuffer(content[1:], dtype="<i2")
        for start in range(0, len(samples), 32):
            await asyncio.sleep(0)
            yield samples[start : start + 32]

    yield blocks()
