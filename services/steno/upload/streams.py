"""Files that come in one stream through this process, for senders that know no length before.

No byte is an audio before it is verified, and none is in the store without a row that names it:
until the end of the stream, the planned removal of what it has sent so far.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

from steno.platform.ending import to_its_end
from steno.platform.errors import ResourceExhausted
from steno.platform.objects import ObjectStore, UploadedPart
from steno.platform.removals import SECOND_REMOVAL_AFTER, Removal, Remover
from steno.upload.domain import (
    MIN_PART_BYTES,
    Audio,
    ChecksumMismatch,
    FileTooLong,
    NewUpload,
    StreamExpired,
    verdict_on,
)
from steno.upload.events import Announcer
from steno.upload.keys import first_place
from steno.upload.settings import Settings
from steno.upload.store import Store

_ROOM_AFTER = timedelta(seconds=30)
"""When a stream that was turned away may come again: how long the others take, nobody knows."""


class Streams:
    """Takes in files that are sent through here, a part of each in memory at a time."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        remover: Remover,
        announcer: Announcer,
        settings: Settings,
    ) -> None:
        self._store = store
        self._objects = objects
        self._remover = remover
        self._announcer = announcer
        self._max_bytes = settings.upload_max_bytes
        self._max_open = settings.upload_max_streams
        self._open = 0
        self._expiry = timedelta(seconds=settings.upload_expiry_seconds)

    async def receive(self, new: NewUpload, chunks: AsyncIterator[bytes]) -> Audio:
        """Takes a whole file from a stream, a part in memory at a time.

        Raises:
            ResourceExhausted: too many streams come in.
            FileTooLong: more bytes came than allowed.
            StreamExpired: it took longer than an upload may be open.
            ChecksumMismatch: the bytes are not those that were announced.
            RequestIdReused: the `request_id` was used with another body.
        """
        if known := await self._store.find_audio(new):
            return await self._store.get_audio(known)
        with self._place():
            return await self._receive(new, chunks)

    async def _receive(self, new: NewUpload, chunks: AsyncIterator[bytes]) -> Audio:
        object_key = first_place(uuid4())
        removal = await to_its_end(self._plan(object_key, new.content_type))
        assert removal.multipart_id is not None
        try:
            async with asyncio.timeout(self._expiry.total_seconds()):
                parts, sha256 = await self._send_parts(object_key, removal.multipart_id, chunks)
            if new.sha256 not in ("", sha256):
                raise ChecksumMismatch(new.sha256, sha256)
        except BaseException as error:
            await to_its_end(self._remover.remove([removal]))
            if isinstance(error, TimeoutError):
                raise StreamExpired from None
            raise
        return await to_its_end(self._take_in(new, removal, parts, sha256))

    async def _plan(self, object_key: str, content_type: str) -> Removal:
        """Begins a multipart upload, which is removed unless an audio comes to own it."""
        multipart_id = await self._objects.create_multipart(object_key, content_type)
        # After all that a stream which ended in time has still to do.
        delay = self._expiry + SECOND_REMOVAL_AFTER
        return await self._store.plan_removal(object_key, multipart_id, delay)

    async def _take_in(
        self, new: NewUpload, removal: Removal, parts: list[UploadedPart], sha256: str
    ) -> Audio:
        """Makes an audio of what a stream has sent."""
        size_bytes = sum(part.size_bytes for part in parts)
        object_key, multipart_id = removal.object_key, removal.multipart_id
        assert multipart_id is not None
        audio = None
        try:
            if parts:
                await self._objects.complete_multipart(object_key, multipart_id, parts)
            audio = await self._store.add_audio(
                new,
                object_key=object_key,
                size_bytes=size_bytes,
                sha256=sha256,
                rejection=verdict_on(size_bytes),
                removal=removal,
            )
        finally:
            if audio is None or not size_bytes or audio.object_key != object_key:
                await self._remover.remove([removal])
        await self._announcer.waits(audio.audio_id, attempt=0)
        return audio

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Lets a stream in. Raises ResourceExhausted: each that is inside takes memory."""
        if self._open >= self._max_open:
            raise ResourceExhausted(
                f"all {self._max_open} upload streams of the server are in use; "
                "try again later, or upload a file",
                _ROOM_AFTER,
                "TOO_MANY_STREAMS",
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _send_parts(
        self, object_key: str, multipart_id: str, chunks: AsyncIterator[bytes]
    ) -> tuple[list[UploadedPart], str]:
        """Sends a stream to the store; the sender waits meanwhile. Returns parts and SHA-256."""
        digest, size = hashlib.sha256(), 0
        sent: list[UploadedPart] = []
        async for part in in_parts(chunks, MIN_PART_BYTES):
            size += len(part)
            if size > self._max_bytes:
                raise FileTooLong(self._max_bytes)
            landed, _ = await asyncio.gather(
                self._objects.upload_part(object_key, multipart_id, len(sent) + 1, part),
                asyncio.to_thread(digest.update, part),
            )
            sent.append(landed)
            del part  # or it would be held while the next one is collected
        return sent, digest.hexdigest()


async def in_parts(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """Regroups a stream into parts of `size` bytes; the last may be shorter but is never empty.

    What is yielded is no longer held here.
    """
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        del chunk
        while len(buffer) >= size:
            yield _taken(buffer, size)
    if buffer:
        yield _taken(buffer, size)


def _taken(buffer: bytearray, size: int) -> bytes:
    """The first bytes of a buffer, which is without them then."""
    with memoryview(buffer) as view:
        part = bytes(view[:size])
    del buffer[:size]
    return part
