"""What callers can do with sessions, beside sending chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from steno.concatenation.domain import (
    Gap,
    NewSession,
    NothingRecorded,
    RecordingDeleted,
    Session,
    SessionState,
)
from steno.concatenation.hls import Playlists
from steno.concatenation.recording import Recordings
from steno.concatenation.settings import Settings
from steno.concatenation.store import Store
from steno.concatenation.watch import Watchers
from steno.platform.objects import ObjectNotFound
from steno.platform.paging import DEFAULT_PAGE_SIZE, read_token, write_token
from steno.platform.tenancy import tenant

MOST_GAPS = 1000


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording as it is now. What was not asked for is empty."""

    session: Session
    playlist: str
    url: str
    expire_time: datetime
    gaps: Sequence[Gap]


class Sessions:
    """Opens, shows and ends sessions."""

    def __init__(
        self,
        store: Store,
        recordings: Recordings,
        playlists: Playlists,
        watchers: Watchers,
        notify: Callable[[UUID], None],
        settings: Settings,
    ) -> None:
        self._store = store
        self._recordings = recordings
        self._playlists = playlists
        self._watchers = watchers
        self._notify = notify
        self._max_open = settings.session_max_open, settings.session_tenant_max_open
        self._close_seconds = settings.session_close_seconds
        self._url_lifetime = timedelta(seconds=settings.recording_url_seconds)

    async def create(self, new: NewSession) -> Session:
        """Opens a session. Raises ResourceExhausted, RequestIdReused."""
        return await self._store.create(new, *self._max_open)

    async def get(self, session_id: UUID) -> Session:
        """Returns a session. Raises SessionNotFound."""
        return await self._store.get(session_id)

    async def page(
        self, states: Sequence[SessionState], labels: Mapping[str, str], size: int, token: str
    ) -> tuple[list[Session], str]:
        """Returns one page of the tenant's, newest first, and the token of the next.

        Raises:
            InvalidArgument: the token is none, or belongs to another filter.
        """
        where = [tenant(), list(states), sorted(labels.items())]
        size = size or DEFAULT_PAGE_SIZE
        before = read_token(token, where)
        found, place = await self._store.page(tenant(), states, labels, size, before)
        return found, write_token(place, where) if place else ""

    async def close(self, session_id: UUID) -> Session:
        """Ends a session, and waits a while until it has become what it becomes.

        Raises:
            SessionNotFound: there is none.
        """
        session = await self._store.close(session_id)
        self._notify(session_id)
        if session.settled:
            return session
        watching = self._watchers.watch(session_id, session.revision, counted=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds), aclosing(watching) as updates:
                async for update in updates:
                    if update.event.HasField("state_changed"):
                        session = await self._store.get(session_id)
                        if session.settled:
                            return session
        return await self._store.get(session_id)

    async def delete(self, session_id: UUID) -> None:
        """Removes a session. Raises SessionNotFound."""
        await self._store.delete(session_id)

    async def recording(self, session_id: UUID, *, playlist: bool, file: bool) -> Recorded:
        """Returns the recording as it is now.

        Raises:
            SessionNotFound: there is no such session.
            NothingRecorded: there is no sound.
            RecordingDeleted: the audio that it became was deleted.
        """
        session = await self._store.get(session_id)
        if not session.frame_count:
            raise NothingRecorded(session_id)
        lifetime, text, url = self._url_lifetime, "", ""
        expire_time = datetime.now(UTC) + lifetime
        try:
            if session.finished:
                await self._recordings.check_file(session)
            if playlist:
                text, expire_time = await self._playlists.playlist(session, lifetime)
            if file:
                url, frames = await self._recordings.snapshot(session, lifetime)
                session = replace(session, frame_count=frames)
        except ObjectNotFound:
            if not session.finished and (await self._store.get(session_id)).finished:
                # It has become an audio just now, and what it was made of is gone.
                return await self.recording(session_id, playlist=playlist, file=file)
            if session.audio_id is None:
                raise
            raise RecordingDeleted(session_id) from None
        gaps = await self._store.gaps(session_id, MOST_GAPS)
        return Recorded(session, text, url, expire_time, gaps)
