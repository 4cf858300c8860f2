"""Whose silence counts: workers are heard only while this process and Postgres answer."""

from __future__ import annotations

import time
from collections.abc import Callable


class Hearing:
    """Tells whether every worker could have renewed its lease.

    While this process or Postgres is away, all leases come to their end, and no worker is to blame.
    So nobody loses a lease before each had the time of a whole one to renew it.
    """

    def __init__(
        self, lease: float, sweep: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes the seconds of a lease, those between two looks, and a clock.

        Workers renew three times in a lease: they are not missed while less than two thirds of it
        pass between two looks.
        """
        self._lease = lease
        self._pause = max(lease / 2, 2 * sweep)
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def answered(self) -> bool:
        """Postgres has answered; returns whether it has done so for a whole lease, without pause.

        A long pause says that it, or this process, stood still.
        """
        now = self._clock()
        if self._since is None or now - self._last > self._pause:
            self._since = now
        self._last = now
        return now - self._since >= self._lease

    def interrupted(self) -> None:
        """Postgres was away: the time starts anew."""
        self._since = None
