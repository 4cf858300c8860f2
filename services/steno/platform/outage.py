"""Suspends lease expiry after an outage of this process or of Postgres."""

from __future__ import annotations

import time
from collections.abc import Callable


class OutageGuard:
    """Tells whether every worker could have renewed its lease.

    During an outage of this process or of Postgres all leases run out, and no worker is to blame.
    So no lease is taken before each worker had the time of a whole lease to renew it.
    """

    def __init__(
        self, lease: float, sweep: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes the seconds of a lease, those between two polls of Postgres, and a clock.

        Workers renew three times in a lease: none is late while less than two thirds of a lease
        pass between two polls.
        """
        self._lease = lease
        self._longest_pause = max(lease / 2, 2 * sweep)
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def answered(self) -> bool:
        """Notes that Postgres has answered; returns whether leases may expire.

        They may if it has answered for a whole lease without a long pause, which would say that it,
        or this process, stood still.
        """
        now = self._clock()
        if self._since is None or now - self._last > self._longest_pause:
            self._since = now
        self._last = now
        return now - self._since >= self._lease

    def interrupted(self) -> None:
        """Notes that Postgres was away: the time starts anew."""
        self._since = None
