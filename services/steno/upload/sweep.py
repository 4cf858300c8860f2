"""Gives up what was left lying, and sees to it that bytes which must go do go."""

from __future__ import annotations

import logging

from steno.platform.objects import ObjectNotFound, ObjectStore
from steno.platform.removals import Remover
from steno.upload.domain import Upload
from steno.upload.store import Store

log = logging.getLogger(__name__)


class Sweeper:
    """Gives up uploads that are due, and removes bytes that are.

    Any number of replicas may sweep at the same time.
    """

    def __init__(self, store: Store, objects: ObjectStore, remover: Remover) -> None:
        self._store = store
        self._objects = objects
        self._remover = remover

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
        await self._remover.sweep()

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
