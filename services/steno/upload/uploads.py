"""How a file comes in: in parts that go straight to S3, or in one stream through here.

No byte is an audio before it is verified, and none is in S3 without a row that names it: an open
upload, or the planned removal of what a stream has sent so far.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from steno.platform.ending import seen
from steno.platform.errors import InvalidArgument, ResourceExhausted
from steno.platform.objects import ObjectNotFound, ObjectStore, UploadedPart
from steno.upload.domain import (
    EMPTY,
    MIN_PART_BYTES,
    Audio,
    ChecksumMismatch,
    FileTooLong,
    NewImport,
    NewUpload,
    ObjectMissing,
    Part,
    PartsMissing,
    Removal,
    RequestIdReused,
    SizeMismatch,
    StreamExpired,
    Upload,
    UploadState,
    part_size,
)
from steno.upload.events import Announcer
from steno.upload.expire import Sweeper
from steno.upload.settings import Settings
from steno.upload.store import SECOND_REMOVAL_AFTER, Store

T = TypeVar("T")

BLOCK_BYTES = 64 * 2**20
"""How much of a file is read at a time while it is verified: some tenths of a second."""

EMPTY_SHA256 = hashlib.sha256().hexdigest()
"""Of no bytes."""

_ROOM_AFTER = timedelta(seconds=30)
"""When a stream that was turned away may come again: how long the others take, nobody knows."""


@dataclass(frozen=True)
class PartStatus:
    """A part, and where to PUT it unless it has landed."""

    part: Part
    landed: bool
    url: str


@dataclass(frozen=True)
class UploadStatus:
    """An upload, its parts, and the time when their URLs stop working."""

    upload: Upload
    parts: list[PartStatus]
    url_expire_time: datetime


class Uploads:
    """Takes in files."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        sweeper: Sweeper,
        announcer: Announcer,
        settings: Settings,
    ) -> None:
        self._store = store
        self._objects = objects
        self._sweeper = sweeper
        self._announcer = announcer
        self._max_bytes = settings.upload_max_bytes
        self._max_open = settings.upload_max_open
        self._tenant_max_open = settings.upload_tenant_max_open
        self._max_streams = settings.upload_max_streams
        self._streams = 0
        self._expiry = timedelta(seconds=settings.upload_expiry_seconds)
        self._url_lifetime = timedelta(seconds=settings.upload_url_seconds)
        self._completing: dict[UUID, asyncio.Task[Audio]] = {}
        self._ending: set[asyncio.Task[Any]] = set()

    async def create(self, new: NewUpload) -> UploadStatus:
        """Starts an upload, or answers the one that the same request started.

        Raises:
            InvalidArgument: the file is longer than allowed.
            ResourceExhausted: too many uploads are open.
            RequestIdReused: the `request_id` was used with another body.
        """
        assert new.size_bytes is not None
        if new.size_bytes > self._max_bytes:
            raise InvalidArgument.of("size_bytes", f"must be at most {self._max_bytes}")
        if known := await self._store.find_upload(new):
            return await self.get(known)
        return await self._status(await self._to_its_end(self._create(new)))

    async def _create(self, new: NewUpload) -> Upload:
        assert new.size_bytes is not None
        upload_id = uuid4()
        object_key, multipart_id = f"uploads/{upload_id}/1", None
        if new.size_bytes:
            multipart_id = await self._objects.create_multipart(object_key, new.content_type)
        upload = None
        try:
            upload = await self._store.add_upload(
                new,
                upload_id=upload_id,
                part_size_bytes=part_size(new.size_bytes),
                object_key=object_key,
                multipart_id=multipart_id,
                expiry=self._expiry,
                idle=self._url_lifetime,
                max_open=self._max_open,
                tenant_max_open=self._tenant_max_open,
            )
        finally:
            # Nothing has landed in it, so a process that dies here leaves no bytes.
            if multipart_id and (upload is None or upload.upload_id != upload_id):
                await self._objects.abort_multipart(object_key, multipart_id)
        return upload

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Does work that goes on when the caller gives up: half of it would leave a part unnamed.

        Every step of it has a time limit of its own.
        """
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(seen)
        return await asyncio.shield(task)

    async def get(self, upload_id: UUID) -> UploadStatus:
        """An upload as it stands. Raises UploadNotFound."""
        return await self._status(await self._store.get_upload(upload_id))

    async def complete(self, upload_id: UUID) -> Audio:
        """Verifies an upload and makes it an audio; once more answers the same audio.

        Goes on when the caller has given up, so that a caller who comes again finds the
        verification of a long file further on.

        Raises:
            UploadNotFound: there is none.
            UploadNotOpen: it was aborted or has expired.
            PartsMissing: some parts have not landed.
            SizeMismatch, ChecksumMismatch: the bytes are not those that were announced.
        """
        running = self._completing.get(upload_id)
        if running is None:
            running = asyncio.create_task(self._complete(upload_id))
            self._completing[upload_id] = running
            running.add_done_callback(lambda _: self._completing.pop(upload_id))
            running.add_done_callback(seen)
        return await asyncio.shield(running)

    async def abort(self, upload_id: UUID) -> None:
        """Gives an upload up.

        Raises:
            UploadNotFound: there is none.
            UploadNotOpen: it was completed.
        """
        await self._sweeper.remove(await self._store.abort_upload(upload_id))

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
        object_key = f"uploads/{uuid4()}/1"
        removal = await self._to_its_end(self._plan(object_key, new.content_type))
        assert removal.multipart_id is not None
        try:
            async with asyncio.timeout(self._expiry.total_seconds()):
                parts, sha256 = await self._send_parts(object_key, removal.multipart_id, chunks)
            if new.sha256 not in ("", sha256):
                raise ChecksumMismatch(new.sha256, sha256)
        except BaseException as error:
            await self._to_its_end(self._sweeper.remove([removal]))
            if isinstance(error, TimeoutError):
                raise StreamExpired from None
            raise
        return await self._to_its_end(self._take_in(new, removal, parts, sha256))

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
                rejection=None if size_bytes else EMPTY,
                removal=removal,
            )
        finally:
            if audio is None or not size_bytes or audio.object_key != object_key:
                await self._sweeper.remove([removal])
        await self._announcer.waits(audio.audio_id, attempt=0)
        return audio

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Lets a stream in. Raises ResourceExhausted: each that is inside takes memory."""
        if self._streams >= self._max_streams:
            raise ResourceExhausted(
                f"the server takes in {self._max_streams} streams at once, and has so many; "
                "try again later, or upload a file",
                _ROOM_AFTER,
                "TOO_MANY_STREAMS",
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def take_over(self, new: NewImport) -> Audio:
        """Makes an audio of an object that another service has left in the bucket.

        Raises:
            ObjectMissing: there is no such object.
            ObjectTaken: it belongs to an audio that another request has made.
            RequestIdReused: the `request_id` was used with another body.
        """
        if known := await self._taken_over(new):
            return known
        try:
            size_bytes, sha256 = await self._measure(new.object_key)
        except ObjectNotFound:
            raise ObjectMissing(new.object_key) from None
        audio = await self._store.add_audio(
            new,
            object_key=new.object_key,
            size_bytes=size_bytes,
            sha256=sha256,
            rejection=None if size_bytes else EMPTY,
            gaps=new.gaps,
        )
        await self._announcer.waits(audio.audio_id, attempt=0)
        return audio

    async def _taken_over(self, new: NewImport) -> Audio | None:
        """What the same import has led to before."""
        try:
            known = await self._store.find_audio(new)
        except RequestIdReused:
            # Of an earlier version's import only the announcement was remembered.
            known = await self._store.find_audio(new.announcement())
            if known is None or (await self._store.get_audio(known)).object_key != new.object_key:
                raise
        return None if known is None else await self._store.get_audio(known)

    async def _status(self, upload: Upload) -> UploadStatus:
        expire_time = datetime.now(UTC) + self._url_lifetime
        if upload.state is not UploadState.OPEN or upload.multipart_id is None:
            landed = upload.state is UploadState.COMPLETED
            parts = [PartStatus(part, landed, url="") for part in upload.parts()]
            return UploadStatus(upload, parts, expire_time)
        sizes = await self._landed(upload)
        if sizes is None:
            restarted = await self._to_its_end(self._restart(upload))
            return await self.get(restarted.upload_id)
        # Off the event loop: a long file has a thousand parts, each with its signature.
        parts = await asyncio.to_thread(self._parts, upload, sizes)
        return UploadStatus(upload, parts, expire_time)

    def _parts(self, upload: Upload, landed: dict[int, int]) -> list[PartStatus]:
        """All parts, with URLs for those that have not landed."""
        assert upload.multipart_id is not None
        parts = upload.parts()
        missing = {
            part.number: part.size_bytes
            for part in parts
            if landed.get(part.number) != part.size_bytes
        }
        urls = self._objects.presigned_parts(
            upload.object_key, upload.multipart_id, missing, self._url_lifetime
        )
        return [
            PartStatus(part, part.number not in missing, urls.get(part.number, ""))
            for part in parts
        ]

    async def _landed(self, upload: Upload) -> dict[int, int] | None:
        """Length of each part that has landed. None if the store has forgotten the upload."""
        assert upload.multipart_id is not None
        try:
            parts = await self._objects.list_parts(upload.object_key, upload.multipart_id)
        except ObjectNotFound:
            if not await self._is_joined(upload):
                return None
            return {part.number: part.size_bytes for part in upload.parts()}
        return {part.part_number: part.size_bytes for part in parts}

    async def _complete(self, upload_id: UUID) -> Audio:
        upload = await self._store.get_upload(upload_id)
        if upload.audio_id is not None:
            return await self._store.get_audio(upload.audio_id)
        upload.check_open()
        await self._join(upload)
        size_bytes, sha256 = 0, EMPTY_SHA256
        if upload.multipart_id is not None:
            size_bytes, sha256 = await self._measure(upload.object_key)
        if size_bytes != upload.size_bytes:
            await self._restart(upload)
            raise SizeMismatch(upload_id, [part.number for part in upload.parts()])
        if upload.sha256 not in ("", sha256):
            await self._restart(upload)
            raise ChecksumMismatch(upload.sha256, sha256)
        rejection = None if size_bytes else EMPTY
        audio = await self._store.complete_upload(upload, sha256, rejection)
        await self._announcer.waits(audio.audio_id, attempt=0)
        return audio

    async def _join(self, upload: Upload) -> None:
        """Makes one object of the parts, unless a call that died later on has done so."""
        if upload.multipart_id is None or await self._is_joined(upload):
            return
        try:
            landed = await self._objects.list_parts(upload.object_key, upload.multipart_id)
            sizes = {part.part_number: part.size_bytes for part in landed}
            if upload.takes_too_much(sizes):
                await self._restart(upload)  # which removes what landed
            upload.check_parts(sizes)
            await self._objects.complete_multipart(upload.object_key, upload.multipart_id, landed)
        except ObjectNotFound:
            # Another replica may have been faster; else the store has lost the parts.
            if not await self._is_joined(upload):
                await self._restart(upload)
                numbers = [part.number for part in upload.parts()]
                raise PartsMissing(upload.upload_id, numbers) from None

    async def _is_joined(self, upload: Upload) -> bool:
        try:
            await self._objects.stat(upload.object_key)
        except ObjectNotFound:
            return False
        return True

    async def _measure(self, object_key: str) -> tuple[int, str]:
        """Length and SHA-256 of what is really in the store."""
        digest = hashlib.sha256()
        size = await self._objects.stat(object_key)
        for offset in range(0, size, BLOCK_BYTES):
            await self._objects.pass_range(object_key, offset, BLOCK_BYTES, digest.update)
        return size, digest.hexdigest()

    async def _restart(self, upload: Upload) -> Upload:
        """Has all parts sent again, to a new place; the old one is removed.

        A new place, because a slow second call may still be at work on the old one.
        """
        place, _, number = upload.object_key.rpartition("/")
        object_key = f"{place}/{int(number) + 1}"
        multipart_id = await self._objects.create_multipart(object_key, upload.content_type)
        removals = await self._store.restart_upload(upload, object_key, multipart_id)
        await self._sweeper.remove(removals)
        return await self._store.get_upload(upload.upload_id)

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
