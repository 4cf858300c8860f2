"""What an uploader is told stays true, though others go away while they are being answered."""

from __future__ import annotations

import asyncio

from leaving_callers import callers_that_leave
from steno.v1 import upload_pb2 as pb

from .conftest import StartService
from .test_uploads import complete, create, put

UPLOADERS = 4
UPLOADS = 6


async def test_audio_that_was_taken_in_stays(start_service: StartService) -> None:
    service = await start_service(STENO_POSTGRES_POOL_SIZE="3")
    theirs = await service.send(b"theirs")

    async def read() -> None:
        await service.slices.ListSlices(pb.ListSlicesRequest(audio_id=theirs.audio_id))

    async def upload() -> None:
        for _ in range(UPLOADS):
            upload = await create(service, b"mine")
            await put(upload, b"mine")
            audio = await complete(service, upload)
            await service.uploads.GetAudio(pb.GetAudioRequest(audio_id=audio.audio_id))

    async with callers_that_leave(read):
        await asyncio.gather(*(upload() for _ in range(UPLOADERS)))
