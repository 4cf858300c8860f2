"""The newest version of a session that this replica knows: what the work behind it waits on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steno.concatenation.domain import Session


class Latest:
    """The newest known version of a session."""

    def __init__(self, session: Session, logged: Callable[[], None]) -> None:
        """Begins with a session as it was read; `logged` is called when its log has grown."""
        self.session = session
        self._logged = logged
        self._changed = asyncio.Event()

    def update(self, session: Session) -> None:
        """Takes in the session as it was read or written."""
        if session.is_behind(self.session):
            return  # it was read before the last write, and came later
        if session.revision > self.session.revision:
            self._logged()
        self.session = session
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, what: Callable[[Session], bool]) -> Session:
        """Waits until something is true of the session."""
        while not what(self.session):
            await self._changed.wait()
        return self.session
