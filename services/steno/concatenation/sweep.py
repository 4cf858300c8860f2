"""What is due without a call: gaps, idle sessions, rows that must go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import UUID

from steno.concatenation.domain import SessionNotFound
from steno.concatenation.metrics import GAPS
from steno.concatenation.settings import Settings
from steno.concatenation.store import Store
from steno.platform import database
from steno.platform.errors import Unavailable

log = logging.getLogger(__name__)


@contextmanager
def _by_itself(action: str, what: UUID | str) -> Iterator[None]:
    """What goes wrong with one must not hold up the others: it is logged, and tried again later."""
    try:
        yield
    except database.OF_ONE as error:
        log.warning("%s: left for later: %s", what, error, extra={"action": action})
    except database.AWAY:
        raise  # so it is for all
    except Unavailable as error:
        log.warning("%s: %s", what, error, extra={"action": action})
    except Exception:
        log.exception("%s: left for later, the others go on", what, extra={"action": action})


class Sweeper:
    """Ends what is overdue, and removes what must go. Replicas share the work."""

    def __init__(
        self,
        store: Store,
        notify: Callable[[UUID], None],
        settings: Settings,
    ) -> None:
        self._store = store
        self._notify = notify
        self._grace = settings.session_grace
        self._retention = timedelta(hours=settings.session_retention_hours)

    async def sweep(self) -> None:
        """Does what is due."""
        for session_id in await self._store.overdue():
            with _by_itself("close_gap", session_id):
                if await self._store.close_gap(session_id):
                    GAPS.inc()
                    self._notify(session_id)
        for session_id in await self._store.idle():
            with _by_itself("expire", session_id):
                if await self._store.expire(session_id):
                    self._notify(session_id)

    async def trim(self) -> None:
        """Removes rows that nobody needs any more, and sessions that have ended long ago."""
        for session_id in await self._store.untrimmed(self._grace):
            with _by_itself("trim", session_id):
                await self._store.trim(session_id)
        for session_id in await self._store.old(self._retention) if self._retention else ():
            with _by_itself("delete_old", session_id), suppress(SessionNotFound):
                await self._store.trim(session_id)
                await self._store.delete(session_id)
