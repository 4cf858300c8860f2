"""Gives up what was left lying, and sees to it that bytes which must go do go."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from steno.platform.objects import ObjectNotFound, ObjectStore
from steno.upload.domain import Removal, Upload
from steno.upload.store import Store

log = logging.getLogger(__name__)


class Sweeper:
    """Removes bytes whose removal is on record: at once when asked to, else when it is due.

    Any number of replicas may sweep at the same time.
    """

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    async def sweep(self) -> None:
        """Expires uploads that are due, and removes all bytes that are.

        What the store refuses comes later, and holds up nothing else.

        Raises:
            Unavailable: the store does not answer at all.
        """
        if expired := await self._store.expire_uploads():
            log.info("%d uploads expired", expired, extra={"action": "expire"})
        while uploads := await self._store.idle_uploads():
            for upload in uploads:
                await self._check(upload)
        while removals := await self._store.claim_removals():
            for removal in removals:
                try:
                    await self._remove(removal)
                except Exception as error:
                    where = removal.object_key
                    log.warning("%s not removed: %s", where, error, extra={"action": "remove"})
                    await self._objects.check()

    async def remove(self, removals: Sequence[Removal]) -> None:
        """Removes bytes now if the store answers, else soon. Never raises."""
        if not removals:
            return
        try:
            for removal in await self._store.claim_removals(removals):
                await self._remove(removal)
        except Exception as error:
            log.warning("bytes are removed later: %s", error, extra={"action": "remove"})

    async def _check(self, upload: Upload) -> None:
        """Gives up an upload of which nothing has landed."""
        try:
            has_landed = await self._has_landed(upload)
        except Exception as error:
            where = upload.object_key
            log.warning("%s not looked at: %s", where, error, extra={"action": "expire"})
            await self._objects.check()
            await self._store.check_upload_later(upload)
            return
        if has_landed:
            await self._store.checked_upload(upload)
        else:
            await self._store.expire_upload(upload)

    async def _has_landed(self, upload: Upload) -> bool:
        """Whether the store has anything of an upload."""
        if upload.multipart_id is None:
            return False
        try:
            return bool(await self._objects.list_parts(upload.object_key, upload.multipart_id))
        except ObjectNotFound:  # joined, or lost
            return bool(await self._objects.list_prefix(upload.object_key))

    async def _remove(self, removal: Removal) -> None:
        if removal.multipart_id is not None:
            await self._objects.abort_multipart(removal.object_key, removal.multipart_id)
        if removal.object_key.endswith("/"):
            await self._objects.remove_prefix(removal.object_key)
        else:
            await self._objects.remove(removal.object_key)
        await self._store.settle_removal(removal)
