"""The services that live sessions call, in memory: upload, which takes recordings over, and job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.message import Message

from simulation.links import Link
from simulation.loop import Loop, Process
from simulation.objects import Bucket
from steno.platform.objects import ObjectNotFound
from steno.platform.tenancy import tenant
from steno.v1.job_pb2 import CreateJobRequest, CreateJobResponse, Job
from steno.v1.upload_pb2 import Audio, ImportAudioRequest, ImportAudioResponse

NO_SUCH_MODEL = "none"
"""The model that the job service does not offer."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a request made, and only its first call.

    Attributes:
        id: of the audio, or the job.
        tenant: on whose account.
        request: what was asked.
        content: of the file that became an audio.
    """

    id: UUID
    tenant: str
    request: Any
    content: bytes = b""


class Refusal(Exception):
    """What a service answers instead."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Channel:
    """The way to a service, and the service: `grpc.aio.Channel`, as far as stubs ask for it."""

    def __init__(self, loop: Loop, link: Link, bucket: Bucket) -> None:
        self.audio: dict[str, Made] = {}
        """By the request that made it."""
        self.jobs: dict[tuple[str, str], Made] = {}
        """By tenant and request."""
        self.busy = 0.0
        """Probability that the job service has too much to do."""
        self._loop = loop
        self._link = link
        self._bucket = bucket
        self._context = Process("neighbours").context

    def unary_unary(self, method: str, **_: Any) -> Callable[..., Any]:
        work = {"ImportAudio": self._import_audio, "CreateJob": self._create_job}.get(
            method.rpartition("/")[2]
        )

        async def call(request: Message, timeout: float | None = None) -> Any:
            assert work is not None, f"nobody serves {method}"
            await asyncio.sleep(self._link.delay())
            if self._link.loses():
                raise _failed(grpc.StatusCode.UNAVAILABLE, "the connection broke")
            # What has arrived is done, whether its caller is still there or not.
            answer: asyncio.Future[Any] = self._loop.create_future()
            self._loop.call_later(
                self._link.delay(), self._do, work, request, tenant(), answer, context=self._context
            )
            return await answer

        return call

    unary_stream = unary_unary

    def _do(
        self,
        work: Callable[[Any, str], Any],
        request: Message,
        tenant: str,
        answer: asyncio.Future[Any],
    ) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work(request, tenant)
        except Refusal as refusal:
            error = _failed(refusal.code, str(refusal))
        if self._link.loses():
            error = _failed(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _import_audio(self, request: ImportAudioRequest, tenant: str) -> ImportAudioResponse:
        made = self.audio.get(request.request_id)
        if made is None:
            try:
                content = self._bucket.get(request.object_key)
            except ObjectNotFound as error:
                raise Refusal(grpc.StatusCode.NOT_FOUND, str(error)) from error
            if any(each.request.object_key == request.object_key for each in self.audio.values()):
                raise Refusal(grpc.StatusCode.ALREADY_EXISTS, "it is another audio's")
            made = self.audio[request.request_id] = Made(self._id(), tenant, request, content)
            self._say(f"upload: {request.object_key} is audio {made.id}")
        elif made.request != request:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, "the request_id was used")
        return ImportAudioResponse(audio=Audio(audio_id=str(made.id)))

    def _create_job(self, request: CreateJobRequest, tenant: str) -> CreateJobResponse:
        if self._loop.chance(self.busy):
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many jobs wait")
        if request.config.model == NO_SUCH_MODEL:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "there is no such model")
        key = (tenant, request.request_id)
        made = self.jobs.get(key)
        if made is None:
            made = self.jobs[key] = Made(self._id(), tenant, request)
            self._say(f"job: {made.id} is made of audio {request.audio_id}")
        elif made.request != request:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, "the request_id was used")
        return CreateJobResponse(job=Job(job_id=str(made.id)))

    def _id(self) -> UUID:
        return UUID(int=self._loop.random.getrandbits(128), version=4)

    def _say(self, what: str) -> None:
        if self._loop.trace is not None:
            self._loop.trace(what)


def _failed(code: grpc.StatusCode, message: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), message)
