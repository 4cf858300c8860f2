"""TranscriptionService and WindowService over gRPC."""

from __future__ import annotations

import grpc

from steno.platform.errors import StatusTable
from steno.platform.interceptors import Context
from steno.platform.wellknown import duration_of
from steno.speech import render_options
from steno.transcription.domain import (
    AudioRejected,
    AudioTooLong,
    InputRefused,
    ModelNotServed,
    NotReady,
)
from steno.transcription.engine import Engine
from steno.transcription.remote import Failed
from steno.transcription.short import Recognized, ShortRecognizer
from steno.transcription.wire import parse_config, parse_samples, render_found, render_model
from steno.v1 import transcription_pb2 as pb
from steno.v1.transcription_pb2_grpc import (
    TranscriptionServiceServicer,
    WindowServiceServicer,
)

SERVICES = [service.full_name for service in pb.DESCRIPTOR.services_by_name.values()]

STATUS_OF: StatusTable = {
    AudioRejected: grpc.StatusCode.INVALID_ARGUMENT,
    AudioTooLong: grpc.StatusCode.INVALID_ARGUMENT,
    InputRefused: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotServed: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    Failed: grpc.StatusCode.UNAVAILABLE,
}


class TranscriptionServicer(TranscriptionServiceServicer):
    """Parses, calls, renders."""

    def __init__(self, engine: Engine, short: ShortRecognizer) -> None:
        self._engine = engine
        self._short = short

    async def Recognize(
        self, request: pb.RecognizeRequest, context: Context
    ) -> pb.RecognizeResponse:
        """Recognises up to 60 seconds of audio."""
        options = parse_config(request.config, self._engine)
        recognized = await self._short.recognize(request.content, options)
        return self._render(recognized, include_dropped=request.include_dropped)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the one model."""
        return pb.ListModelsResponse(models=[render_model(self._engine.model)])

    def _render(self, recognized: Recognized, *, include_dropped: bool) -> pb.RecognizeResponse:
        kept, dropped = render_found(recognized.segments)
        return pb.RecognizeResponse(
            segments=kept,
            dropped_segments=dropped if include_dropped else [],
            text="".join(segment.text for segment in kept).strip(),
            language_code=recognized.language,
            audio_duration=duration_of(recognized.duration),
            model=render_model(self._engine.model),
            config=render_options(recognized.options),
            audio_truncated=recognized.truncated,
        )


class WindowServicer(WindowServiceServicer):
    """What live sessions hear."""

    def __init__(self, engine: Engine, short: ShortRecognizer) -> None:
        self._engine = engine
        self._short = short

    async def RecognizeWindow(
        self, request: pb.RecognizeWindowRequest, context: Context
    ) -> pb.RecognizeWindowResponse:
        """Recognises one window."""
        options = parse_config(request.config, self._engine)
        samples = parse_samples(request.samples)
        found = await self._short.recognize_window(samples, options, is_final=request.is_final)
        kept, _ = render_found(found.segments)
        return pb.RecognizeWindowResponse(segments=kept, language_code=found.language)
