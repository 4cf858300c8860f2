"""Rows that can't be dealt with are set aside, so that those behind them are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

from prometheus_client import Counter

from steno.platform.errors import Unavailable
from steno.platform.loops import AWAY

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0

SET_ASIDE = Counter(
    "steno_job_rows_set_aside",
    "Rows that a loop could not deal with, and left for later.",
    ["loop"],
)


class Aside(Generic[K]):
    """What one loop leaves out for a while: twice as long with each failure, up to five minutes."""

    def __init__(self, loop: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Has nothing yet.

        Args:
            loop: what logs and metrics call it.
            clock: in seconds.
        """
        self._loop = loop
        self._clock = clock
        self._pauses: dict[K, float] = {}
        self._until: dict[K, float] = {}
        SET_ASIDE.labels(loop)

    @property
    def keys(self) -> list[K]:
        """The rows that are to be left out now."""
        now = self._clock()
        # A loop that was held up comes to a row again long after its pause.
        forgotten = now - LONGEST_PAUSE_SECONDS
        for key in [key for key, until in self._until.items() if until < forgotten]:
            self._forget(key)  # it is gone, or has not failed again
        return [key for key, until in self._until.items() if now < until]

    @contextmanager
    def tried(self, key: K, *taken: type[Exception]) -> Iterator[None]:
        """Inside, a row is dealt with. What is wrong with it stops nobody else.

        What only says that somebody else has the row is no failure; it comes later.

        What says that a server is away is raised, since it holds for all; the row comes later all
        the same, lest it be the one that makes it seem so.
        """
        try:
            yield
        except AWAY:
            self.set(key)
            raise
        except taken:
            self._pauses.setdefault(key, FIRST_PAUSE_SECONDS)
            self._until[key] = self._clock() + FIRST_PAUSE_SECONDS
        except Exception as error:
            self.failed(key, error)
        else:
            self._forget(key)

    def failed(self, key: K, error: BaseException) -> None:
        """Logs and counts what is wrong with a row, and leaves it for later."""
        SET_ASIDE.labels(self._loop).inc()
        log.error("%s is set aside", key, exc_info=error, extra={"action": self._loop})
        self.set(key)

    def all_failed(self, errors: Mapping[K, BaseException], *, beside_others: bool) -> None:
        """Leaves rows that were sent at once for later; others went well, or none did.

        Raises:
            Unavailable: it is what all say, so that nothing is wrong with any.
        """
        away = [error for error in errors.values() if isinstance(error, Unavailable)]
        if away and not beside_others and len(away) == len(errors):
            raise away[0]
        for key, error in errors.items():
            self.failed(key, error)

    def set(self, key: K) -> None:
        """Leaves a row for later, though nothing is wrong with it."""
        self._pauses[key] = min(
            2 * self._pauses.get(key, FIRST_PAUSE_SECONDS / 2), LONGEST_PAUSE_SECONDS
        )
        self._until[key] = self._clock() + self._pauses[key]

    def _forget(self, key: K) -> None:
        self._pauses.pop(key, None)
        self._until.pop(key, None)
