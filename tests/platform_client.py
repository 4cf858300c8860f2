"""A client of a whole platform, for tests: uploads, jobs, transcripts, over gRPC and HTTP."""

from __future__ import annotations

import asyncio
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc

from steno.platform.client import open_channel
from steno.v1 import job_pb2, transcript_pb2, transcription_pb2_grpc, upload_pb2
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub
from steno.v1.job_pb2_grpc import JobServiceStub
from steno.v1.upload_pb2_grpc import UploadServiceStub
from waiting import eventually

EXAMPLES = Path(__file__).parent.parent / "examples" / "audio"

ENDED = {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}

T = TypeVar("T")


class Client:
    """Calls a platform as a patient application does: what is UNAVAILABLE is tried again."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._opened: list[Any] = []
        self.addresses = addresses
        self.channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Client:
        for service, address in self.addresses.items():
            opening = open_channel(address)
            self.channels[service] = await opening.__aenter__()
            self._opened.append(opening)
        self.uploads = UploadServiceStub(self.channels["upload"])
        self.jobs = JobServiceStub(self.channels["job"])
        self.transcription = transcription_pb2_grpc.TranscriptionServiceStub(
            self.channels["transcription"]
        )
        self.sessions = ConcatenationServiceStub(self.channels["concatenation"])
        return self

    async def __aexit__(self, *error: object) -> None:
        for opening in self._opened:
            await opening.__aexit__(None, None, None)

    async def patiently(self, call: Callable[[], Awaitable[T]], within: float = 90) -> T:
        """Tries until it does not fail with UNAVAILABLE, or with a failing upload to S3."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            try:
                return await call()
            except (grpc.aio.AioRpcError, OSError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def upload(self, filename: str, data: bytes) -> upload_pb2.Audio:
        """Sends a file in parts."""
        request = upload_pb2.CreateUploadRequest(
            filename=filename, size_bytes=len(data), request_id=str(uuid.uuid4())
        )
        created = await self.patiently(lambda: self.uploads.CreateUpload(request, timeout=20))
        for part in created.upload.parts:
            body = data[part.offset_bytes : part.offset_bytes + part.size_bytes]
            await self.patiently(lambda u=part.url, b=body: asyncio.to_thread(_put, u, b))  # type: ignore[misc]
        completed = await self.patiently(
            lambda: self.uploads.CompleteUpload(
                upload_pb2.CompleteUploadRequest(upload_id=created.upload.upload_id), timeout=60
            )
        )
        return completed.audio

    async def create_job(
        self,
        audio_id: str,
        config: transcript_pb2.RecognitionConfig | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> job_pb2.Job:
        """Makes a job."""
        request = job_pb2.CreateJobRequest(
            audio_id=audio_id, config=config, labels=labels, request_id=str(uuid.uuid4())
        )
        return (await self.patiently(lambda: self.jobs.CreateJob(request, timeout=20))).job

    async def end_of(self, job_id: str, within: float = 120) -> job_pb2.Job:
        """Waits until a job has ended."""

        async def ended() -> job_pb2.Job | None:
            request = job_pb2.GetJobRequest(job_id=job_id)
            job = (await self.patiently(lambda: self.jobs.GetJob(request, timeout=20))).job
            return job if job.state in ENDED else None

        return await eventually(ended, within=within, every=0.2)

    async def transcript(self, job_id: str) -> transcript_pb2.Transcript:
        """A job's transcript."""
        request = job_pb2.GetTranscriptRequest(job_id=job_id)
        response = await self.patiently(lambda: self.jobs.GetTranscript(request, timeout=20))
        return response.transcript

    async def transcribe(
        self,
        filename: str,
        data: bytes,
        within: float = 120,
        labels: Mapping[str, str] | None = None,
    ) -> transcript_pb2.Transcript:
        """The whole way of a file that is expected to succeed."""
        audio = await self.upload(filename, data)
        job = await self.create_job(audio.audio_id, labels=labels)
        job = await self.end_of(job.job_id, within)
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.error
        return await self.transcript(job.job_id)


def _put(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, method="PUT")
    with urllib.request.urlopen(request, timeout=60):
        pass


async def fetched(url: str) -> bytes:
    """What is at a URL."""

    def fetch() -> bytes:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.read()  # type: ignore[no-any-return]

    return await asyncio.to_thread(fetch)
