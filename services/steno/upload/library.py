"""What can be done with stored audio."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import UUID

from steno.platform import paging
from steno.platform.objects import ObjectStore
from steno.platform.paging import DEFAULT_PAGE_SIZE
from steno.platform.removals import Remover
from steno.platform.tenancy import tenant
from steno.upload.domain import Audio, AudioNotFound, AudioRejected, AudioState
from steno.upload.events import Announcer
from steno.upload.settings import Settings
from steno.upload.store import Store

log = logging.getLogger(__name__)


class Library:
    """Lists, gives away and removes audio."""

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
        self._retention = timedelta(hours=settings.audio_retention_hours)
        self._url_lifetime = timedelta(seconds=settings.upload_url_seconds)

    async def page(
        self, state: AudioState | None, size: int, token: str
    ) -> tuple[list[Audio], str]:
        """Returns the tenant's audio, newest first, and the token of the next page or "".

        Raises:
            InvalidArgument: the token is none, or belongs to another filter.
        """
        size, where = size or DEFAULT_PAGE_SIZE, [tenant(), state]
        audio = await self._store.list_audio(size + 1, state, paging.read_token(token, where))
        if len(audio) <= size:
            return audio, ""
        last = audio[size - 1]
        return audio[:size], paging.write_token((last.create_time, last.audio_id), where)

    async def delete(self, audio_id: UUID) -> None:
        """Removes an audio, its slices and its bytes. Raises AudioNotFound."""
        audio, removals = await self._store.delete_audio(audio_id)
        await self._announcer.changed(audio_id, audio.state, audio.slice_count, deleted=True)
        await self._remover.remove(removals)

    async def delete_old(self) -> None:
        """Removes audio that has been here for longer than it is kept."""
        while self._retention and (old := await self._store.old_audio(self._retention)):
            for audio_id in old:
                with suppress(AudioNotFound):  # another replica was faster
                    await self.delete(audio_id)
            log.info("%d old audios deleted", len(old), extra={"action": "delete_old"})

    async def retry(self, audio_id: UUID) -> Audio:
        """Has a preparation that failed tried again at once.

        Raises:
            AudioNotFound: there is none.
            AudioRejected: no try can help.
        """
        attempt = await self._store.retry_audio(audio_id)
        if attempt is not None:
            await self._announcer.waits(audio_id, attempt)
        return await self._store.get_audio(audio_id)

    async def download_url(self, audio_id: UUID) -> tuple[str, datetime]:
        """URL of the original file, and when it stops working.

        Raises:
            AudioNotFound: there is none.
            AudioRejected: its bytes are gone.
        """
        audio, now = await self._store.get_audio(audio_id), datetime.now(UTC)
        if audio.rejection is not None and not audio.has_bytes(now):
            raise AudioRejected(audio_id, audio.rejection)
        headers = {
            "Content-Type": playable(audio.content_type),
            "Content-Disposition": attachment(audio.filename),
        }
        url = self._objects.presigned_get(audio.object_key, self._url_lifetime, headers)
        return url, now + self._url_lifetime


def playable(content_type: str) -> str:
    """The type that a browser is told. It came from a client, and the bytes may be anything.

    What is no sound and no video is not to be shown, least of all as a page of the store's.
    """
    if re.fullmatch(r"(audio|video)/[A-Za-z0-9.+-]+", content_type):
        return content_type
    return "application/octet-stream"


def attachment(filename: str) -> str:
    """Content-Disposition (RFC 6266) of a file that is saved, not shown, under its own name."""
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
