"""The transcription process: wiring, and nothing else."""

from __future__ import annotations

import asyncio
import logging

from steno.audio import require_walls, tell_walls
from steno.models import entry_of, store_at
from steno.platform import messaging
from steno.platform.client import open_channel
from steno.platform.objects import open_store
from steno.platform.process import run
from steno.platform.server import GrpcServer
from steno.platform.tls import trusted
from steno.transcription.engine import FasterWhisper
from steno.transcription.recognizer import Recognizer
from steno.transcription.servicer import (
    SERVICES,
    STATUS_OF,
    TranscriptionServicer,
    WindowServicer,
)
from steno.transcription.settings import Settings
from steno.transcription.short import ShortRecognizer
from steno.transcription.worker import Worker
from steno.v1.job_pb2_grpc import TaskServiceStub
from steno.v1.transcription_pb2_grpc import (
    add_TranscriptionServiceServicer_to_server,
    add_WindowServiceServicer_to_server,
)

log = logging.getLogger(__name__)


def load(settings: Settings) -> FasterWhisper:
    """Loads the model and warms it up."""
    model = store_at(settings.model_dir).open(settings.model)
    entry = entry_of(settings.model)
    engine = FasterWhisper(
        settings.model_name or model.name,
        model.folder,
        model.revision,
        device=settings.device,
        compute_type=settings.compute_type,
        cpu_threads=settings.cpu_threads,
        beam_size=settings.beam_size,
        max_batch=settings.max_batch,
        batch_window_seconds=settings.batch_window_ms / 1000,
        windows=entry.windows if entry else None,
    )
    engine.warm_up()
    log.info(
        "model loaded, computes in %s",
        engine.model.compute_type,
        extra={"action": "load", "model": engine.model.name},
    )
    return engine


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves Recognize and works on tasks until it is told to stop."""
    require_walls(settings.sandbox == "require")
    engine = await asyncio.to_thread(load, settings)
    try:
        await serve(settings, stopping, engine)
    finally:
        engine.close()


async def serve(settings: Settings, stopping: asyncio.Event, engine: FasterWhisper) -> None:
    """Serves with a loaded model."""
    slices = engine.batcher.max_batch + 1  # one is read while the others share the batch
    short_calls = settings.recognize_max_calls + settings.live_max_windows
    async with (
        Recognizer(engine, slices + short_calls) as recognizer,
        open_channel(settings.job_address, tls=trusted(settings.tls_ca)) as channel,
        open_store(settings) as store,
        messaging.connect(settings, settings.worker_id) as nats,
        asyncio.TaskGroup() as group,
    ):
        short = ShortRecognizer(recognizer, settings.recognize_max_calls, settings.live_max_windows)
        server = GrpcServer(settings, SERVICES, STATUS_OF)
        add_TranscriptionServiceServicer_to_server(
            TranscriptionServicer(engine, short), server.server
        )
        add_WindowServiceServicer_to_server(WindowServicer(engine, short), server.server)
        worker = Worker(
            settings.worker_id,
            recognizer,
            nats,
            TaskServiceStub(channel),
            store,
            slices_in_hand=slices,
            report_seconds=settings.task_report_seconds,
            grace_seconds=settings.shutdown_grace_seconds,
            max_model_factor=settings.slice_max_model_factor,
            max_call_seconds=settings.model_call_max_seconds,
        )
        # Both have the same grace period, so they end side by side.
        group.create_task(worker.run(stopping))
        group.create_task(tell_walls())
        async with server:
            await stopping.wait()


if __name__ == "__main__":
    run("transcription", Settings, main)
