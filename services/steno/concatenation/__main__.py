"""Wires the concatenation service: `python -m steno.concatenation`."""

from __future__ import annotations

import asyncio

from steno.audio import VadModel, require_walls, tell_walls
from steno.concatenation.domain import SessionNotFound
from steno.concatenation.finish import Finisher
from steno.concatenation.hls import Playlists
from steno.concatenation.ingest import Ingest
from steno.concatenation.metrics import Meter
from steno.concatenation.recent import RecentObjects
from steno.concatenation.recording import Recordings
from steno.concatenation.room import Arrivals, Room
from steno.concatenation.servicer import SERVICE, STATUS_OF, ConcatenationServicer, serve
from steno.concatenation.sessions import Sessions
from steno.concatenation.settings import Settings
from steno.concatenation.store import Store
from steno.concatenation.sweep import Sweeper
from steno.concatenation.watch import Watchers
from steno.concatenation.windows import Windows
from steno.concatenation.worker import Workers
from steno.platform import messaging as nats
from steno.platform.access import Resource
from steno.platform.client import open_channel
from steno.platform.database import checks, open_pool
from steno.platform.loops import once, repeat, running
from steno.platform.objects import open_store
from steno.platform.process import return_large_blocks, run
from steno.platform.removals import Remover
from steno.platform.server import GrpcServer
from steno.platform.tls import trusted

UNREAD = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 2**18))
"""What gRPC takes of a message that nobody reads yet: 256 KiB, where it would take some MiB. That
is 2.5 MB/s of one stream over 100 ms, far more than any sound."""

BUCKET_SECONDS = 1.0
REMOVE_SECONDS = 2.0
TRIM_SECONDS = 60.0
METRICS_SECONDS = 5.0


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves until told to stop."""
    require_walls(settings.sandbox == "require")
    tls = trusted(settings.tls_ca)
    async with (
        open_pool(settings) as pool,
        nats.connect(settings, "concatenation") as messaging,
        open_store(settings) as s3,
        open_channel(settings.upload_address, tls=tls) as upload,
        open_channel(settings.job_address, tls=tls) as job,
        open_channel(settings.transcription_address, tls=tls) as transcription,
    ):
        store, objects = Store(pool), RecentObjects(s3)
        recordings = Recordings(store, objects)
        watchers = Watchers(store, messaging, settings.session_max_viewers)
        workers = Workers(
            store,
            objects,
            recordings,
            watchers,
            Finisher(store, recordings, upload, job),
            Windows(transcription),
            VadModel(),
            settings,
        )
        sweeper = Sweeper(store, workers.notify, settings)
        sessions = Sessions(
            store, recordings, Playlists(recordings, s3), watchers, workers.notify, settings
        )
        # Slow callers of AppendChunk take no room from streams.
        arriving = Arrivals(settings.session_max_bytes_in_flight)
        written = Room(settings.session_max_bytes_in_flight)
        ingest = Ingest(store, objects, watchers, workers.notify, written)

        # Ready without NATS and without the other services: sessions are recorded in any case. And
        # without S3: sessions are shown and watched, and producers keep what is refused.
        server = GrpcServer(
            settings,
            [SERVICE],
            STATUS_OF,
            checks(pool, "concatenation"),
            UNREAD,
            resources={"session_id": Resource(store.tenant_of, SessionNotFound)},
        )
        serve(ConcatenationServicer(sessions, store, ingest, watchers, arriving), server.server)

        sweep, poll = settings.session_sweep_seconds, settings.session_poll_seconds
        async with (
            running(
                once("ensure_bucket", s3.ensure_bucket, BUCKET_SECONDS),
                tell_walls(),
                repeat("relay", watchers.relay, poll, workers.changed.waiter()),
                repeat("receive", watchers.receive, poll, within=None),
                repeat("deliver", watchers.deliver, poll, watchers.woken),
                repeat("poll", watchers.poll, poll, workers.changed.waiter()),
                repeat("claim", workers.claim, sweep, workers.unclaimed),
                repeat("renew", workers.renew, settings.session_lease_seconds / 3),
                repeat("sweep", sweeper.sweep, sweep),
                repeat("remove", Remover(store.removals, s3).sweep, REMOVE_SECONDS),
                repeat("trim", sweeper.trim, TRIM_SECONDS),
                repeat("measure", Meter(store).measure, METRICS_SECONDS),
            ),
            server,
        ):
            await stopping.wait()
        await workers.stop()


if __name__ == "__main__":
    return_large_blocks()
    run("concatenation", Settings, main)
