"""Files that come in parts, which go straight to the object store.

No byte is an audio before it is verified, and none is in the store without a row that names it: an
open upload, or a removal.
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from steno.platform.ending import seen, to_its_end
from steno.platform.errors import InvalidArgument
from steno.platform.objects import ObjectNotFound, ObjectStore
from steno.platform.removals import Remover
from steno.upload.domain import (
    Audio,
    ChecksumMismatch,
    NewUpload,
    PartsMissing,
    PartStatus,
    SizeMismatch,
    Upload,
    UploadState,
    UploadStatus,
    part_size,
    verdict_on,
)
from steno.upload.events import Announcer
from steno.upload.keys import first_place, next_place
from steno.upload.settings import Settings
from steno.upload.store import Store

BLOCK_BYTES = 64 * 2**20
"""How much of a file is read at a time while it is verified: some tenths of a second."""

EMPTY_SHA256 = hashlib.sha256().hexdigest()
"""Of no bytes."""


class Uploads:
    """Takes in files whose parts their senders PUT into the object store."""

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
        self._max_open = settings.upload_max_open
        self._tenant_max_open = settings.upload_tenant_max_open
        self._expiry = timedelta(seconds=settings.upload_expiry_seconds)
        self._url_lifetime = timedelta(seconds=settings.upload_url_seconds)
        self._completing: dict[UUID, asyncio.Task[Audio]] = {}

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
        return await self._status(await to_its_end(self._create(new)))

    async def _create(self, new: NewUpload) -> Upload:
        assert new.size_bytes is not None
        upload_id = uuid4()
        object_key, multipart_id = first_place(upload_id), None
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
        await self._remover.remove(await self._store.abort_upload(upload_id))

    async def _status(self, upload: Upload) -> UploadStatus:
        expire_time = datetime.now(UTC) + self._url_lifetime
        if upload.state is not UploadState.OPEN or upload.multipart_id is None:
            landed = upload.state is UploadState.COMPLETED
            parts = [PartStatus(part, landed, url="") for part in upload.parts()]
            return UploadStatus(upload, parts, expire_time)
        sizes = await self._landed(upload)
        if sizes is None:
            restarted = await to_its_end(self._restart(upload))
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
            size_bytes, sha256 = await measured(self._objects, upload.object_key)
        if size_bytes != upload.size_bytes:
            await self._restart(upload)
            raise SizeMismatch(upload_id, [part.number for part in upload.parts()])
        if upload.sha256 not in ("", sha256):
            await self._restart(upload)
            raise ChecksumMismatch(upload.sha256, sha256)
        audio = await self._store.complete_upload(upload, sha256, verdict_on(size_bytes))
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

    async def _restart(self, upload: Upload) -> Upload:
        """Has all parts sent again, to a new place; the old one is removed.

        A new place, because a slow second call may still be at work on the old one.
        """
        object_key = next_place(upload.object_key)
        multipart_id = await self._objects.create_multipart(object_key, upload.content_type)
        removals = await self._store.restart_upload(upload, object_key, multipart_id)
        await self._remover.remove(removals)
        return await self._store.get_upload(upload.upload_id)


async def measured(objects: ObjectStore, object_key: str) -> tuple[int, str]:
    """Length in bytes and SHA-256 of what is really in the store."""
    digest = hashlib.sha256()
    size = await objects.stat(object_key)
    for offset in range(0, size, BLOCK_BYTES):
        await objects.pass_range(object_key, offset, BLOCK_BYTES, digest.update)
    return size, digest.hexdigest()
