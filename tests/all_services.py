"""All four services in the process of the tests, and things in them that calls can be about."""

from __future__ import annotations

import asyncio
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from builtin_model import FOLDER, NAME
from corpus.waves import SECOND, data, format_chunk, wave
from serving import serving
from steno.concatenation.__main__ import main as concatenation_main
from steno.concatenation.settings import Settings as ConcatenationSettings
from steno.job.__main__ import main as job_main
from steno.job.settings import Settings as JobSettings
from steno.local.ports import HOST, free_port
from steno.platform.database import Pool, open_pool
from steno.platform.settings import PostgresSettings
from steno.transcription.__main__ import main as transcription_main
from steno.transcription.settings import Settings as TranscriptionSettings
from steno.upload.__main__ import main as upload_main
from steno.upload.prepare import main as prepare_main
from steno.upload.settings import PrepareSettings
from steno.upload.settings import Settings as UploadSettings
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2, upload_pb2
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub
from steno.v1.job_pb2_grpc import JobServiceStub, TaskServiceStub
from steno.v1.upload_pb2_grpc import SliceServiceStub, UploadServiceStub
from waiting import eventually

QUIET = wave(format_chunk(), data(bytes(len(SECOND))))
"""A recording in which nobody speaks: no model is asked."""

UNSERVED = "unserved"
"""A model that jobs may ask for, and that no worker has: their tasks wait."""


class Services:
    """Clients of the services."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], pool: Pool) -> None:
        self.channels = channels
        self.pool = pool
        self.uploads = UploadServiceStub(channels["upload"])
        self.slices = SliceServiceStub(channels["upload"])
        self.jobs = JobServiceStub(channels["job"])
        self.tasks = TaskServiceStub(channels["job"])
        self.sessions = ConcatenationServiceStub(channels["concatenation"])

    async def ready(self) -> list[str]:
        """Which of them say that they are ready."""
        said = []
        for name, channel in self.channels.items():
            health = HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                said.append(name)
        return said

    async def clear(self) -> None:
        """Ends and removes all that calls have made: there are limits to what may be open."""
        for session_id in await self._ids("SELECT session_id FROM concatenation.sessions"):
            session = concatenation_pb2.DeleteSessionRequest(session_id=session_id)
            await _unless_gone(self.sessions.DeleteSession(session))
        for job_id in await self._ids("SELECT job_id FROM job.jobs"):
            await _unless_gone(self.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job_id)))
            await _unless_gone(self.jobs.DeleteJob(job_pb2.DeleteJobRequest(job_id=job_id)))
        for upload_id in await self._ids(
            "SELECT upload_id FROM upload.uploads WHERE state = 'OPEN'"
        ):
            upload = upload_pb2.AbortUploadRequest(upload_id=upload_id)
            await _unless_gone(self.uploads.AbortUpload(upload))
        for audio_id in await self._ids("SELECT audio_id FROM upload.audio"):
            audio = upload_pb2.DeleteAudioRequest(audio_id=audio_id)
            await _unless_gone(self.uploads.DeleteAudio(audio))

    async def _ids(self, statement: LiteralString) -> list[str]:
        async with self.pool.connection() as db:
            rows = await (await db.execute(statement)).fetchall()
        return [str(value) for row in rows for value in row.values()]


GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


async def _unless_gone(call: Awaitable[object]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() not in GONE:
            raise


@asynccontextmanager
async def all_services() -> AsyncIterator[Services]:
    """Runs them on the servers that the environment names.

    They look for what they were not told of seldom: for many calls that is most of their work.
    """
    address = {
        name: f"{HOST}:{free_port()}"
        for name in ("upload", "prepare", "job", "transcription", "concatenation")
    }
    others: dict[str, Any] = {
        f"{name}_address": address[name] for name in ("upload", "job", "transcription")
    }
    once: dict[str, Any] = {"shutdown_grace_seconds": 1}
    wiring: list[tuple[str, Callable[..., Awaitable[None]], Any]] = [
        ("upload", upload_main, UploadSettings(listen=address["upload"], **once)),
        ("prepare", prepare_main, PrepareSettings(listen=address["prepare"], **once)),
        (
            "job",
            job_main,
            JobSettings(
                listen=address["job"],
                upload_address=address["upload"],
                models=f"{NAME},{UNSERVED}",
                job_audio_poll_seconds=1,
                job_sweep_seconds=5,
                job_status_seconds=5,
                **once,
            ),
        ),
        (
            "transcription",
            transcription_main,
            TranscriptionSettings(
                listen=address["transcription"],
                job_address=address["job"],
                model=str(FOLDER),
                model_name=NAME,
                cpu_threads=1,
                beam_size=1,
                **once,
            ),
        ),
        (
            "concatenation",
            concatenation_main,
            ConcatenationSettings(
                listen=address["concatenation"],
                session_close_seconds=0.2,
                session_sweep_seconds=5,
                session_poll_seconds=5,
                **others,
                **once,
            ),
        ),
    ]
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(PostgresSettings()))
        channels = {
            name: await stack.enter_async_context(serving(main, settings))
            for name, main, settings in wiring
        }
        del channels["prepare"]
        yield Services(channels, pool)


OF_JOBS = 9
"""The audio that jobs are made of. No call names it, or all jobs would end with the first call that
deletes it."""


class Things:
    """What the calls of one script are about: made when one of them first names it.

    A thing is known by its kind and a number: `("job", 0)` is another than `("job", 1)`, and stands
    otherwise. So a script means the same each time that it is run.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ids: dict[tuple[str, int], asyncio.Future[str]] = {}

    async def id_of(self, kind: str, number: int) -> str:
        """The id of a thing."""
        if (kind, number) not in self._ids:
            making = self._new(kind, number)
            self._ids[kind, number] = asyncio.ensure_future(making)
        return await self._ids[kind, number]

    async def _request(self, number: int) -> str:
        return str(uuid.uuid4())

    async def _upload(self, number: int) -> str:
        """0: open; 1: its bytes have landed; 2: aborted."""
        request = upload_pb2.CreateUploadRequest(filename="a.wav", size_bytes=len(QUIET))
        upload = (await self._services.uploads.CreateUpload(request)).upload
        if number == 1:
            await asyncio.to_thread(_put, upload.parts[0].url, QUIET)
        if number == 2:
            abort = upload_pb2.AbortUploadRequest(upload_id=upload.upload_id)
            await self._services.uploads.AbortUpload(abort)
        return upload.upload_id

    async def _audio(self, number: int) -> str:
        """0: READY; 1: REJECTED; 2: whatever it is by now."""
        content = b"These are the words." if number == 1 else QUIET

        async def requests() -> AsyncIterator[upload_pb2.UploadAudioRequest]:
            header = upload_pb2.UploadAudioHeader(filename="a.wav")
            yield upload_pb2.UploadAudioRequest(header=header)
            yield upload_pb2.UploadAudioRequest(chunk=content)

        uploads = self._services.uploads
        audio_id: str = (await uploads.UploadAudio(requests())).audio.audio_id

        async def prepared() -> bool:
            audio = (await uploads.GetAudio(upload_pb2.GetAudioRequest(audio_id=audio_id))).audio
            return audio.state != upload_pb2.AUDIO_STATE_PREPARING

        if number != 2:
            await eventually(prepared, every=0.1)
        return audio_id

    async def _job(self, number: int) -> str:
        """0: a worker takes it; 1: waits for days; 2: waits for a worker; 3: cancelled."""
        request = job_pb2.CreateJobRequest(audio_id=await self.id_of("audio", OF_JOBS))
        if number == 1:
            request.not_before.FromDatetime(datetime.now(UTC) + timedelta(days=9))
        if number == 2:
            request.config.model = UNSERVED
        job = (await self._services.jobs.CreateJob(request)).job
        if number == 3:
            await self._services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
        return job.job_id

    async def _task(self, number: int) -> str:
        """0: nobody has it; 1: leased, as its first attempt."""
        job_id = await self._new("job", 2)
        async with self._services.pool.connection() as db:
            found = await db.execute("SELECT task_id FROM job.tasks WHERE job_id = %s", [job_id])
            row = await found.fetchone()
        assert row is not None
        task_id = str(row["task_id"])
        if number == 1:
            lease = job_pb2.LeaseTaskRequest(task_id=task_id, worker_id="worker")
            await self._services.tasks.LeaseTask(lease)
        return task_id

    async def _session(self, number: int) -> str:
        """0: of plain samples, one second long; 1: of a container; 2: closed, and empty."""
        plain = concatenation_pb2.SessionConfig(
            encoding=concatenation_pb2.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16_000
        )
        container = concatenation_pb2.SessionConfig(
            encoding=concatenation_pb2.AUDIO_ENCODING_CONTAINER
        )
        create = concatenation_pb2.CreateSessionRequest(config=container if number else plain)
        create.config.final_job_config.CopyFrom(transcript_pb2.RecognitionConfig(model=UNSERVED))
        session = (await self._services.sessions.CreateSession(create)).session
        if number == 0:
            chunk = concatenation_pb2.Chunk(content=bytes(32_000))
            await self._services.sessions.AppendChunk(
                concatenation_pb2.AppendChunkRequest(session_id=session.session_id, chunk=chunk)
            )
        if number == 2:
            await self._services.sessions.CloseSession(
                concatenation_pb2.CloseSessionRequest(session_id=session.session_id)
            )
        return session.session_id

    async def _new(self, kind: str, number: int) -> str:
        """One of its own, which no call of the script names."""
        made: str = await getattr(self, f"_{kind}")(number)
        return made


def _put(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, method="PUT")
    with urllib.request.urlopen(request, timeout=60):
        pass
