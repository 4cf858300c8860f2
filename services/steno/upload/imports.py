"""Recordings that other services have left in the bucket."""

from __future__ import annotations

from steno.platform.objects import ObjectNotFound, ObjectStore
from steno.upload.domain import Audio, NewImport, ObjectMissing, RequestIdReused, verdict_on
from steno.upload.events import Announcer
from steno.upload.store import Store
from steno.upload.uploads import measured


class Imports:
    """Takes over recordings, without a copy."""

    def __init__(self, store: Store, objects: ObjectStore, announcer: Announcer) -> None:
        self._store = store
        self._objects = objects
        self._announcer = announcer

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
            size_bytes, sha256 = await measured(self._objects, new.object_key)
        except ObjectNotFound:
            raise ObjectMissing(new.object_key) from None
        audio = await self._store.add_audio(
            new,
            object_key=new.object_key,
            size_bytes=size_bytes,
            sha256=sha256,
            rejection=verdict_on(size_bytes),
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
