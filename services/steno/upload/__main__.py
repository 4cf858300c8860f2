"""The upload service: `python -m steno.upload`."""

from __future__ import annotations

import asyncio
from functools import partial

from steno.platform import database, messaging, objects, process
from steno.platform.access import Resource
from steno.platform.loops import once, repeat, running
from steno.platform.removals import Remover
from steno.platform.server import GrpcServer
from steno.upload.domain import AudioNotFound, UploadNotFound
from steno.upload.events import Announcer
from steno.upload.imports import Imports
from steno.upload.library import Library
from steno.upload.reconcile import Reminder, reconcile
from steno.upload.servicer import STATUS_OF, ImportServicer, SliceServicer, UploadServicer
from steno.upload.settings import Settings
from steno.upload.store import PreparationStore, Store
from steno.upload.streams import Streams
from steno.upload.sweep import Sweeper
from steno.upload.uploads import Uploads
from steno.v1 import upload_pb2, upload_pb2_grpc

BUCKET_SECONDS = 1.0


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves until told to stop."""
    async with (
        database.open_pool(settings) as pool,
        messaging.connect(settings, "upload") as nats,
        objects.open_store(settings) as s3,
    ):
        store, announcer = Store(pool), Announcer(nats)
        remover = Remover(store.removals, s3)
        sweeper = Sweeper(store, s3, remover)
        uploads = Uploads(store, s3, remover, announcer, settings)
        streams = Streams(store, s3, remover, announcer, settings)
        imports = Imports(store, s3, announcer)
        library = Library(store, s3, remover, announcer, settings)

        names = [s.full_name for s in upload_pb2.DESCRIPTOR.services_by_name.values()]
        # Ready without S3 and without NATS: what is known is told, as jobs need it.
        server = GrpcServer(
            settings,
            names,
            STATUS_OF,
            database.checks(pool, "upload"),
            resources={
                "upload_id": Resource(store.tenant_of_upload, UploadNotFound),
                "audio_id": Resource(store.tenant_of_audio, AudioNotFound),
            },
        )
        upload_pb2_grpc.add_UploadServiceServicer_to_server(
            UploadServicer(uploads, streams, library, store), server.server
        )
        upload_pb2_grpc.add_SliceServiceServicer_to_server(SliceServicer(store), server.server)
        upload_pb2_grpc.add_ImportServiceServicer_to_server(ImportServicer(imports), server.server)

        waiting = partial(reconcile, PreparationStore(pool), Reminder(nats))
        async with (
            running(
                once("ensure_bucket", s3.ensure_bucket, BUCKET_SECONDS),
                repeat("sweep", sweeper.sweep, settings.upload_sweep_seconds),
                repeat("delete_old", library.delete_old, settings.upload_sweep_seconds),
                repeat("reconcile", waiting, settings.upload_reconcile_seconds),
            ),
            server,
        ):
            await stopping.wait()


if __name__ == "__main__":
    process.return_large_blocks()
    process.run("upload", Settings, main)
