"""Job services, an upload service that tests command, and a worker that does as it is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from rows import Rows
from steno.job.__main__ import main
from steno.job.settings import Settings
from steno.local.ports import HOST, free_port
from steno.platform.client import open_channel
from steno.platform.errors import Failure, read_failure
from steno.platform.messaging import TASKS, Messaging, connect, settle, tasks_subject
from steno.platform.server import GrpcServer
from steno.platform.settings import NatsSettings, ProcessSettings
from steno.platform.tenancy import tenant_in
from steno.v1 import job_pb2 as pb
from steno.v1 import transcript_pb2, upload_pb2
from steno.v1.events_pb2 import AudioEvent, TaskMessage
from steno.v1.job_pb2_grpc import JobServiceStub, TaskServiceStub
from steno.v1.upload_pb2_grpc import SliceServiceServicer, add_SliceServiceServicer_to_server
from waiting import eventually, listening

if TYPE_CHECKING:
    from steno.v1.job_pb2_grpc import JobServiceAsyncStub, TaskServiceAsyncStub

SAMPLE_RATE = 16_000
SLICE_SECONDS = 30


@dataclass
class Recording:
    """An audio as the upload service knows it."""

    audio: upload_pb2.Audio
    slices: list[upload_pb2.Slice] = field(default_factory=list)

    @property
    def audio_id(self) -> str:
        return self.audio.audio_id

    def cut(self, count: int = 1, seconds: float = SLICE_SECONDS) -> None:
        """Further slices are there."""
        for _ in range(count):
            index = len(self.slices)
            start = sum(piece.sample_count for piece in self.slices)
            length = round(seconds * SAMPLE_RATE)
            self.slices.append(
                upload_pb2.Slice(
                    index=index,
                    start_sample=start,
                    sample_count=length,
                    speech_sample_count=length,
                    object_key=f"slices/{self.audio_id}/{index}.wav",
                )
            )
        self.audio.slice_count = len(self.slices)

    def finish(self) -> None:
        """No more slices will come."""
        self.audio.state = upload_pb2.AUDIO_STATE_READY

    def reject(self) -> None:
        self.audio.state = upload_pb2.AUDIO_STATE_REJECTED
        self.audio.rejection.reason = "UNSUPPORTED_FORMAT"
        self.audio.rejection.message = "it is a picture"


class AudioNotFound(Exception):
    reason = "AUDIO_NOT_FOUND"


class Upload(SliceServiceServicer):
    """A SliceService that keeps its contract, in memory, over real gRPC."""

    STATUS_OF: ClassVar[dict[type[Exception], grpc.StatusCode]] = {
        AudioNotFound: grpc.StatusCode.NOT_FOUND
    }

    def __init__(self) -> None:
        self.recordings: dict[str, Recording] = {}
        self.address = f"{HOST}:{free_port()}"
        self.asked: list[str] = []
        self.silent: dict[str, asyncio.Event] = {}
        """Audio of which nothing is answered until its event is set."""
        self._serving = AsyncExitStack()

    def record(self, slices: int = 0, *, ready: bool = True, truncated: bool = False) -> Recording:
        """Takes in an audio."""
        audio = upload_pb2.Audio(
            audio_id=str(uuid.uuid4()),
            filename="talk.mp3",
            state=upload_pb2.AUDIO_STATE_PREPARING,
            truncated=truncated,
        )
        recording = self.recordings[audio.audio_id] = Recording(audio)
        recording.cut(slices)
        if ready:
            recording.finish()
        return recording

    def delete(self, recording: Recording) -> None:
        del self.recordings[recording.audio_id]

    async def start(self) -> None:
        settings = ProcessSettings(
            listen=self.address, metrics_listen="", shutdown_grace_seconds=0.1
        )
        server = GrpcServer(settings, [], self.STATUS_OF)
        add_SliceServiceServicer_to_server(self, server.server)
        await self._serving.enter_async_context(server)

    async def stop(self) -> None:
        await self._serving.aclose()

    async def ListSlices(
        self, request: upload_pb2.ListSlicesRequest, context: object
    ) -> upload_pb2.ListSlicesResponse:
        self.asked.append(request.audio_id)
        if request.audio_id in self.silent:
            await self.silent[request.audio_id].wait()
        recording = self.recordings.get(request.audio_id)
        if recording is None:
            raise AudioNotFound
        return upload_pb2.ListSlicesResponse(
            audio=recording.audio, slices=recording.slices[request.start_index :]
        )


@pytest.fixture
async def upload() -> AsyncIterator[Upload]:
    upload = Upload()
    await upload.start()
    yield upload
    await upload.stop()


@dataclass
class Replica:
    """A running job service, and clients of it."""

    jobs: JobServiceAsyncStub
    tasks: TaskServiceAsyncStub
    channel: grpc.aio.Channel
    stopping: asyncio.Event
    service: asyncio.Task[None] | None
    """None where it runs in a process of its own."""

    async def stop(self) -> None:
        assert self.service is not None
        self.stopping.set()
        await self.service

    async def create(self, recording: Recording, **request: Any) -> pb.Job:
        config = request.pop("config", transcript_pb2.RecognitionConfig(language_code="en"))
        response = await self.jobs.CreateJob(
            pb.CreateJobRequest(audio_id=recording.audio_id, config=config, **request)
        )
        return response.job

    async def get(self, job: pb.Job) -> pb.Job:
        with tenant_in(job.tenant):
            response = await self.jobs.GetJob(pb.GetJobRequest(job_id=job.job_id))
        return response.job

    async def in_state(self, job: pb.Job, state: pb.JobState.ValueType) -> pb.Job:
        """Waits until the job is in a state."""

        async def look() -> pb.Job | None:
            found = await self.get(job)
            return found if found.state == state else None

        return await eventually(look)

    async def transcript(self, job: pb.Job, **request: Any) -> pb.GetTranscriptResponse:
        return await self.jobs.GetTranscript(pb.GetTranscriptRequest(job_id=job.job_id, **request))

    def watch(self, job: pb.Job, after_revision: int = 0) -> Any:
        return self.jobs.WatchJob(
            pb.WatchJobRequest(job_id=job.job_id, after_revision=after_revision)
        )

    async def log(self, job: pb.Job, after_revision: int = 0) -> list[pb.JobEvent]:
        """Watches a job to its end; returns the events."""
        return [
            response.event
            async for response in self.watch(job, after_revision)
            if response.HasField("event")
        ]


StartReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def start_replica(messaging: Messaging, upload: Upload) -> AsyncIterator[StartReplica]:
    """Starts a replica of the service, with short intervals, until the test ends."""
    # Or the first messages of a test may change places, while each makes the streams.
    await messaging.ensure_streams()
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Replica:
            return await stack.enter_async_context(_replica(upload, settings))

        yield start


@asynccontextmanager
async def _replica(upload: Upload, settings: dict[str, Any]) -> AsyncIterator[Replica]:
    fast: dict[str, Any] = {
        "task_lease_seconds": 30,
        "task_max_pause_seconds": 0.1,
        "job_sweep_seconds": 0.1,
        "job_message_check_seconds": 0.5,
        "job_audio_poll_seconds": 0.3,
        "job_deleted_poll_seconds": 0.3,
        "job_status_seconds": 0.2,
    }
    address = f"{HOST}:{free_port()}"
    stopping = asyncio.Event()
    service = asyncio.create_task(
        main(
            Settings(
                **fast | settings,
                listen=address,
                upload_address=upload.address,
                shutdown_grace_seconds=1,
            ),
            stopping,
        )
    )
    await listening(address)
    async with open_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 60)
        replica = Replica(
            JobServiceStub(channel), TaskServiceStub(channel), channel, stopping, service
        )
        yield replica
    await replica.stop()


@pytest.fixture
async def replica(start_replica: StartReplica) -> Replica:
    return await start_replica()


@pytest.fixture
async def leasing(start_replica: StartReplica) -> Replica:
    """A replica whose leases outlast the test, beside one that soon takes back what `run_out`."""
    await start_replica(task_lease_seconds=1)
    return await start_replica(task_lease_seconds=600)


@pytest.fixture
async def messaging(environment: dict[str, str]) -> AsyncIterator[Messaging]:
    async with connect(NatsSettings(), "test") as messaging:
        yield messaging


async def announce(messaging: Messaging, recording: Recording, *, deleted: bool = False) -> None:
    """Says that an audio changed, as the upload service does."""
    await messaging.publish(
        f"steno.events.audio.{recording.audio_id}",
        AudioEvent(
            audio_id=recording.audio_id,
            state=recording.audio.state,
            slice_count=len(recording.slices),
            deleted=deleted,
        ),
    )


async def refusal(call: Any) -> Failure:
    """The failure that a call must end with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_failure(caught.value)


@dataclass
class Work:
    """A leased task."""

    task_id: str
    lease: pb.LeaseTaskResponse

    @property
    def index(self) -> int:
        return self.lease.slice.index

    def result(
        self,
        text: str | None = None,
        language: str = "en",
        coverage: transcript_pb2.Coverage | None = None,
    ) -> pb.CompleteTaskRequest:
        """What a worker found: one segment that says which slice it is; no text means silence."""
        text = f" Slice {self.index}." if text is None else text
        segment = transcript_pb2.Segment(
            start_offset=Duration(seconds=1),
            end_offset=Duration(seconds=2),
            text=text,
            avg_logprob=-0.25,
            language_code=language,
        )
        return pb.CompleteTaskRequest(
            task_id=self.task_id,
            attempt=self.lease.attempt,
            transcript=transcript_pb2.SliceTranscript(
                segments=[segment] if text else [],
                language_code=language,
                model=transcript_pb2.ModelInfo(name="builtin", revision="abc", compute_type="int8"),
                config=self.lease.config,
                coverage=coverage,
            ),
        )


class Worker:
    """A worker that takes tasks from the queue and does what the test says."""

    def __init__(self, tasks: Any, messaging: Messaging) -> None:
        self.tasks = tasks
        self._queue = messaging.work_queue(
            TASKS, "workers-builtin", tasks_subject("builtin", "*"), TaskMessage
        )

    async def take(self) -> Work:
        """Leases the next task that the queue has; its message is acked at once."""
        taken: list[Work] = []

        async def lease(message: TaskMessage) -> None:
            try:
                answer = await self.tasks.LeaseTask(
                    pb.LeaseTaskRequest(task_id=message.task_id, worker_id="worker")
                )
            except grpc.aio.AioRpcError:
                return  # a message more than needed: nothing to do
            taken.append(Work(message.task_id, answer))

        async def look() -> bool:
            delivery = await self._queue.next(timeout=0.5)
            if delivery is not None:
                await settle(delivery, lease)
            return bool(taken)

        await eventually(look, every=0)
        return taken[0]

    async def is_idle(self) -> bool:
        """The queue has nothing to do."""
        return await self._queue.next(timeout=0.3) is None

    async def complete(self, work: Work, **result: Any) -> None:
        await self.tasks.CompleteTask(work.result(**result))

    async def fail(self, work: Work, failure: pb.TaskFailure.ValueType, message: str = "") -> None:
        await self.tasks.FailTask(
            pb.FailTaskRequest(
                task_id=work.task_id,
                attempt=work.lease.attempt,
                failure=failure,
                message=message,
            )
        )

    async def renew(self, work: Work, seconds: float = 0, language: str = "") -> Any:
        return await self.tasks.RenewTask(
            pb.RenewTaskRequest(
                task_id=work.task_id,
                attempt=work.lease.attempt,
                transcribed_sample_count=round(seconds * SAMPLE_RATE),
                language_code=language,
            )
        )

    async def do(self, count: int) -> None:
        """Takes and completes so many tasks."""
        for _ in range(count):
            await self.complete(await self.take())


@pytest.fixture
def worker(replica: Replica, messaging: Messaging) -> Worker:
    return Worker(replica.tasks, messaging)


# Both in a thread: the service, which runs in this one, may just hold a lock on the row.


async def run_out(rows: Rows, *works: Work) -> None:
    """The leases are past their time, one after the other."""
    for work in works:
        await asyncio.to_thread(
            rows,
            "UPDATE job.tasks SET lease_expire_time = now() - interval '1 s' WHERE task_id = %s",
            work.task_id,
        )


async def comes(rows: Rows, job: pb.Job, moment: str) -> None:
    """It is now that a job's `deadline` or `not_before` has come."""
    statement = f"UPDATE job.jobs SET {moment} = now() WHERE job_id = %s"
    await asyncio.to_thread(rows, statement, job.job_id)
