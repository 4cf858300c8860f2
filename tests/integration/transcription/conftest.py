"""The transcription service on real NATS and S3, and a job service that does what it is told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from faster_whisper import decode_audio

from builtin_model import FOLDER, NAME, load_builtin
from steno.audio import encode_slice, from_float
from steno.platform.client import open_channel
from steno.platform.messaging import Messaging, connect, tasks_subject
from steno.platform.objects import ObjectStore, open_store
from steno.platform.server import GrpcServer
from steno.platform.settings import NatsSettings, ProcessSettings, S3Settings
from steno.transcript import SAMPLE_RATE
from steno.transcription.engine import Engine, Samples
from steno.transcription.threaded import ThreadedEngine
from steno.transcription.whisper import FasterWhisper
from steno.transcription.worker import Worker
from steno.v1 import job_pb2 as pb
from steno.v1 import transcript_pb2, upload_pb2
from steno.v1.events_pb2 import TaskMessage
from steno.v1.job_pb2_grpc import (
    TaskServiceServicer,
    TaskServiceStub,
    add_TaskServiceServicer_to_server,
)

EXAMPLES = Path(__file__).parents[3] / "examples" / "audio"


@pytest.fixture(scope="session")
def engine() -> FasterWhisper:
    """The model of the tests."""
    engine = load_builtin()
    engine.warm_up()
    return engine


@pytest.fixture(scope="session")
def speech() -> Samples:
    """A minute of speech, and a little more."""
    samples: Samples = decode_audio(str(EXAMPLES / "demo.opus"))
    return samples[: 62 * SAMPLE_RATE]


@pytest.fixture
async def store(environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as store:
        await store.ensure_bucket()
        yield store


@pytest.fixture
async def messaging(environment: dict[str, str]) -> AsyncIterator[Messaging]:
    async with connect(NatsSettings(), "test") as messaging:
        await messaging.ensure_streams()
        yield messaging


@dataclass
class Task:
    """A task as the job service knows it, and what it was told of it."""

    task_id: str
    slice: upload_pb2.Slice
    config: transcript_pb2.RecognitionConfig
    state: str = "PENDING"
    is_only: bool = False
    attempt: int = 0
    request_id: str = ""
    leased_until: float = 0
    workers: list[str] = field(default_factory=list)
    renewals: list[pb.RenewTaskRequest] = field(default_factory=list)
    failures: list[pb.FailTaskRequest] = field(default_factory=list)
    transcripts: list[transcript_pb2.SliceTranscript] = field(default_factory=list)

    @property
    def is_held(self) -> bool:
        """A worker holds it."""
        return self.state == "LEASED" and self.leased_until > time.monotonic()

    @property
    def text(self) -> str:
        """What was heard, once it is done."""
        (transcript,) = self.transcripts
        return "".join(segment.text for segment in transcript.segments)


class NotFound(Exception):
    reason = "TASK_NOT_FOUND"


class NotPending(Exception):
    reason = "TASK_NOT_PENDING"


class Leased(Exception):
    reason = "TASK_LEASED"


class Stale(Exception):
    reason = "STALE_LEASE"


class Jobs(TaskServiceServicer):
    """A TaskService that keeps its contract, in memory."""

    STATUS_OF: ClassVar = {
        NotFound: grpc.StatusCode.NOT_FOUND,
        NotPending: grpc.StatusCode.FAILED_PRECONDITION,
        Leased: grpc.StatusCode.ABORTED,
        Stale: grpc.StatusCode.ABORTED,
    }

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.lease_seconds = 3.0
        self.language = ""
        self.address = ""
        self._serving = AsyncExitStack()

    async def start(self) -> None:
        """Serves, at the same address after a restart."""
        settings = ProcessSettings(
            listen=self.address or "127.0.0.1:0", metrics_listen="", shutdown_grace_seconds=0.1
        )
        server = GrpcServer(settings, [], self.STATUS_OF)
        add_TaskServiceServicer_to_server(self, server.server)
        await self._serving.enter_async_context(server)
        self.address = f"127.0.0.1:{server.port}"

    async def stop(self) -> None:
        await self._serving.aclose()

    async def LeaseTask(
        self, request: pb.LeaseTaskRequest, context: object
    ) -> pb.LeaseTaskResponse:
        task = self.tasks.get(request.task_id)
        if task is None:
            raise NotFound
        again = bool(request.request_id) and request.request_id == task.request_id
        if task.is_held and not again:
            raise Leased
        if task.state not in ("PENDING", "LEASED"):
            raise NotPending
        task.state = "LEASED"
        if not (task.is_held and again):
            task.attempt += 1
            task.workers.append(request.worker_id)
            task.request_id = request.request_id
        task.leased_until = time.monotonic() + self.lease_seconds
        leased = pb.LeaseTaskResponse(
            attempt=task.attempt,
            slice=task.slice,
            config=task.config,
            only_task=task.is_only,
            alone=any(each.failure == pb.TASK_FAILURE_RETRYABLE for each in task.failures),
        )
        leased.lease_duration.FromMilliseconds(int(self.lease_seconds * 1000))
        return leased

    def _held(self, task_id: str, attempt: int) -> Task:
        task = self.tasks[task_id]
        if task.attempt != attempt or task.state not in ("LEASED", "CANCELLED"):
            raise Stale
        return task

    async def RenewTask(
        self, request: pb.RenewTaskRequest, context: object
    ) -> pb.RenewTaskResponse:
        task = self._held(request.task_id, request.attempt)
        task.renewals.append(request)
        task.leased_until = time.monotonic() + self.lease_seconds
        self.language = self.language or request.language_code
        return pb.RenewTaskResponse(
            cancelled=task.state == "CANCELLED", language_code=self.language
        )

    async def CompleteTask(
        self, request: pb.CompleteTaskRequest, context: object
    ) -> pb.CompleteTaskResponse:
        task = self.tasks[request.task_id]
        if task.state == "DONE" and task.transcripts == [request.transcript]:
            return pb.CompleteTaskResponse()
        self._held(request.task_id, request.attempt)
        if task.state == "CANCELLED":
            raise Stale
        task.state = "DONE"
        task.transcripts.append(request.transcript)
        return pb.CompleteTaskResponse()

    async def FailTask(self, request: pb.FailTaskRequest, context: object) -> pb.FailTaskResponse:
        task = self._held(request.task_id, request.attempt)
        task.failures.append(request)
        task.state = "FAILED" if request.failure == pb.TASK_FAILURE_PERMANENT else "PENDING"
        return pb.FailTaskResponse()


@dataclass
class Platform:
    """One model's queue, and the job service behind it."""

    jobs: Jobs
    messaging: Messaging
    store: ObjectStore
    model: str

    async def offer(
        self, samples: Samples | None, config: transcript_pb2.RecognitionConfig | None = None
    ) -> Task:
        """Makes a task of a slice and sends its message. Without samples its object is missing."""
        task_id = str(uuid.uuid4())
        key = f"slices/{task_id}.wav"
        count = 0
        if samples is not None:
            count = len(samples)
            await self.store.put(key, encode_slice(from_float(samples)))
        slice = upload_pb2.Slice(sample_count=count, object_key=key)
        config = config or transcript_pb2.RecognitionConfig(language_code="en")
        self.jobs.tasks[task_id] = task = Task(task_id, slice, config)
        await self.send(task)
        return task

    async def send(self, task: Task) -> None:
        """Sends a task's message, once more or again."""
        message = TaskMessage(task_id=task.task_id, job_id=str(uuid.uuid4()))
        await self.messaging.publish(tasks_subject(self.model, "normal"), message)

    @asynccontextmanager
    async def worker(
        self,
        engine: FasterWhisper,
        grace_seconds: float = 5,
        slices_in_hand: int = 2,
    ) -> AsyncIterator[RunningWorker]:
        """A worker in this process with a model that is loaded already, stopped at the end."""
        # A model with a name of its own has a queue of its own.
        model: Any = Overlaid(
            engine, model=replace(engine.model, name=self.model), slices_at_once=slices_in_hand
        )
        async with (
            ThreadedEngine(model, slices_in_hand) as threaded,
            self.worker_with(threaded, grace_seconds) as worker,
        ):
            yield worker

    @asynccontextmanager
    async def worker_with(
        self, engine: Engine, grace_seconds: float = 5
    ) -> AsyncIterator[RunningWorker]:
        """A worker in this process with any engine, stopped at the end."""
        stopping = asyncio.Event()
        async with open_channel(self.jobs.address) as channel:
            worker = Worker(
                "worker",
                engine,
                self.messaging,
                TaskServiceStub(channel),
                self.store,
                report_seconds=0.1,
                grace_seconds=grace_seconds,
                max_model_factor=100,
                max_call_seconds=600,
            )
            running = asyncio.create_task(worker.run(stopping))
            yield RunningWorker(worker, stopping, running)
            stopping.set()
            await asyncio.wait([running])


@dataclass
class RunningWorker:
    """A worker, and how to stop it."""

    worker: Worker
    stopping: asyncio.Event
    running: asyncio.Task[None]

    async def stop(self) -> None:
        self.stopping.set()
        await self.running


@pytest.fixture
async def platform(messaging: Messaging, store: ObjectStore) -> AsyncIterator[Platform]:
    jobs = Jobs()
    await jobs.start()
    yield Platform(jobs, messaging, store, f"model-{uuid.uuid4()}")
    await jobs.stop()


class SteppedEngine(FasterWhisper):
    """The real engine, window by window; each waits to be decoded until the test lets it."""

    def __init__(self) -> None:
        super().__init__(
            NAME,
            FOLDER,
            "r1",
            cpu_threads=1,
            max_batch=1,
            batch_window_seconds=1,  # who was served is back before another goes on
        )
        self.steps_begun = 0
        self._permits = threading.Semaphore(0)
        model = self.batcher.model
        decode = model.generate

        def stepped(*args: Any, **options: Any) -> Any:
            self.steps_begun += 1
            self._permits.acquire()
            return decode(*args, **options)

        self.batcher.model = Overlaid(model, generate=stepped)

    def go_on(self, steps: int = 1) -> None:
        self._permits.release(steps)


class Overlaid:
    """An object some of whose attributes are others."""

    def __init__(self, beneath: object, **attributes: object) -> None:
        self._beneath = beneath
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._beneath, name)


@pytest.fixture
def stepped() -> Iterator[SteppedEngine]:
    stepped = SteppedEngine()
    yield stepped
    stepped.go_on(10_000)
    stepped.close()


class WorkerProcess:
    """`python -m steno.transcription`."""

    def __init__(self, platform: Platform, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "steno.transcription"],
                env={
                    **os.environ,
                    "STENO_LISTEN": "127.0.0.1:0",
                    "STENO_METRICS_LISTEN": "",
                    "STENO_MODEL": str(FOLDER),
                    "STENO_MODEL_NAME": platform.model,
                    "STENO_JOB_ADDRESS": platform.jobs.address,
                    "STENO_WORKER_ID": name,
                    "STENO_CPU_THREADS": "1",
                    "STENO_TASK_REPORT_SECONDS": "0.3",
                    "STENO_SHUTDOWN_GRACE_SECONDS": "3",
                },
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()


StartWorker = Callable[[str], WorkerProcess]


@pytest.fixture
def start_worker(platform: Platform, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts worker processes, which end with the test."""
    started: list[WorkerProcess] = []

    def start(name: str) -> WorkerProcess:
        started.append(WorkerProcess(platform, name, tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait()
