"""The transcription process: wiring, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from steno.audio import require_walls, tell_walls
from steno.models import entry_of, store_at
from steno.platform import messaging
from steno.platform.client import open_channel
from steno.platform.objects import open_store
from steno.platform.process import run
from steno.platform.server import GrpcServer
from steno.platform.tls import trusted
from steno.transcription.engine import Engine
from steno.transcription.remote import RemoteEngine
from steno.transcription.servicer import (
    SERVICES,
    STATUS_OF,
    TranscriptionServicer,
    WindowServicer,
)
from steno.transcription.settings import Settings
from steno.transcription.short import ShortRecognizer
from steno.transcription.threaded import BlockingModel, ThreadedEngine
from steno.transcription.worker import Worker
from steno.v1.job_pb2_grpc import TaskServiceStub
from steno.v1.transcription_pb2_grpc import (
    add_TranscriptionServiceServicer_to_server,
    add_WindowServiceServicer_to_server,
)

if TYPE_CHECKING:
    from steno.transcription.whisper import FasterWhisper

log = logging.getLogger(__name__)


def load(settings: Settings) -> FasterWhisper:
    """Loads the model and warms it up."""
    # A process whose engine is a server somewhere else has no use for these libraries.
    from steno.transcription.whisper import FasterWhisper

    model = store_at(settings.model_dir).open(settings.model)
    entry = entry_of(settings.model)
    engine = FasterWhisper(
        settings.model_name or model.name,
        model.folder,
        model.revision,
        device=settings.device,
        compute_type=settings.compute_type,
        cpu_threads=settings.cpu_threads,
        gpus=settings.gpus,
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


@asynccontextmanager
async def in_threads(settings: Settings, model: BlockingModel) -> AsyncIterator[Engine]:
    """The engine of a model in this process; closes the model at the end."""
    short_calls = settings.recognize_max_calls + settings.live_max_windows
    try:
        async with ThreadedEngine(model, model.slices_at_once + short_calls) as engine:
            yield engine
    finally:
        model.close()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Engine]:
    """The engine that the settings name."""
    if settings.engine == "remote":
        async with RemoteEngine(
            settings.model_name or settings.remote_model,
            settings.remote_url,
            settings.remote_model,
            settings.remote_api_key.get_secret_value(),
            concurrency=settings.remote_concurrency,
            timeout_seconds=settings.remote_timeout_seconds,
            with_times=settings.remote_response_format == "verbose_json",
        ) as remote:
            yield remote
    else:
        async with in_threads(settings, await asyncio.to_thread(load, settings)) as engine:
            yield engine


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves Recognize and works on tasks until it is told to stop."""
    require_walls(settings.sandbox == "require")
    async with opened(settings) as engine:
        await serve(settings, stopping, engine)


async def serve(settings: Settings, stopping: asyncio.Event, engine: Engine) -> None:
    """Serves with an engine."""
    async with (
        open_channel(settings.job_address, tls=trusted(settings.tls_ca)) as channel,
        open_store(settings) as store,
        messaging.connect(settings, settings.worker_id) as nats,
        asyncio.TaskGroup() as group,
    ):
        short = ShortRecognizer(engine, settings.recognize_max_calls, settings.live_max_windows)
        server = GrpcServer(settings, SERVICES, STATUS_OF, checks=[engine.ready])
        add_TranscriptionServiceServicer_to_server(
            TranscriptionServicer(engine, short), server.server
        )
        add_WindowServiceServicer_to_server(WindowServicer(engine, short), server.server)
        worker = Worker(
            settings.worker_id,
            engine,
            nats,
            TaskServiceStub(channel),
            store,
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
