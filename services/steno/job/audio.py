"""What the upload service knows of audio."""

from __future__ import annotations

from uuid import UUID

import grpc

from steno.job.domain import Audio, AudioNotFound
from steno.job.messages import parse_audio
from steno.platform.errors import Unavailable
from steno.v1.upload_pb2 import ListSlicesRequest
from steno.v1.upload_pb2_grpc import SliceServiceStub

_TIMEOUT_SECONDS = 10


class AudioSource:
    """Asks the upload service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._slices = SliceServiceStub(channel)

    async def fetch(self, audio_id: UUID, start_index: int = 0) -> Audio:
        """Returns an audio with its slices from an index on, as of one moment.

        Raises:
            AudioNotFound: there is none, or no longer.
            Unavailable: the upload service does not answer.
        """
        request = ListSlicesRequest(audio_id=str(audio_id), start_index=start_index)
        try:
            found = await self._slices.ListSlices(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise AudioNotFound(audio_id) from error
            raise Unavailable("the upload service does not answer; try again") from error
        return parse_audio(found.audio, found.slices)
