"""The transcription service, as live sessions ask it: window by window."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from steno.concatenation.samples import Samples
from steno.platform.errors import Failure, read_failure
from steno.speech import render_options
from steno.transcript import Options
from steno.v1.transcription_pb2 import RecognizeWindowRequest, RecognizeWindowResponse
from steno.v1.transcription_pb2_grpc import WindowServiceStub

TIMEOUT_SECONDS = 60.0
"""Longest time that an answer takes. After each failure the next may take twice as long."""

_HEALTH_SECONDS = 5.0


class Unanswered(Exception):
    """Transcription gave no result; another time it may."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code.name}: {failure.message}")
        self.code = failure.code


class Refused(Exception):
    """Transcription can't do what the session asks for."""


class Windows:
    """Asks the transcription service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = WindowServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def recognize(
        self,
        samples: Samples,
        language_code: str,
        *,
        is_final: bool,
        timeout: float = TIMEOUT_SECONDS,
    ) -> RecognizeWindowResponse:
        """Recognises a window.

        Raises:
            Unanswered: it is away, has too much to do, takes longer than `timeout`, or fails.
            Refused: it does not know the language, or the like.
        """
        request = RecognizeWindowRequest(
            config=render_options(
                Options(language_code=language_code, word_time_offsets=True, vad_filter=False)
            ),
            samples=samples.astype("<i2", copy=False).tobytes(),
            is_final=is_final,
        )
        try:
            return await self._stub.RecognizeWindow(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            failure = read_failure(error)
            if failure.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                raise Refused(failure.message) from error
            raise Unanswered(failure) from error

    async def served(self) -> bool:
        """Whether there is a worker that serves."""
        request = health_pb2.HealthCheckRequest()
        try:
            answer = await self._health.Check(request, timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
