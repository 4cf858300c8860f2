"""Who is let in: a server that is behind says so at once, instead of being too late for everybody.

When more calls come than can be done, each waits behind all before it. Then all waits are as long
as the callers' patience, and what is done at last is done for nobody: goodput falls to nothing,
though the machine is never idle. A refusal costs next to nothing, and its caller knows when to come
again. The sign is taken from those who are inside, as CoDel takes it from the packets in a queue:
how long they have waited, not how many they are. A burst of thousands is let in, and done.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager

FEW = 32
"""So many calls of a method at once are always let in."""

PATIENCE_SECONDS = 60.0
"""Of a caller who does not say how long there is time."""

_SHARE = 0.1
"""Of its time that a call may have waited before it counts as late. Those who come last wait for
all before them, several times as long: with a half, some of them would be let in in vain."""


class Inside:
    """The calls of one method that are being served."""

    def __init__(self) -> None:
        self._late_from: list[float] = []  # sorted

    def is_behind(self, now: float) -> bool:
        """Whether more than half of the calls are late.

        Args:
            now: of a clock that is always the same, in seconds.
        """
        count = len(self._late_from)
        return count >= FEW and self._late_from[count // 2] <= now

    @contextmanager
    def call(self, now: float, seconds_left: float | None) -> Iterator[None]:
        """A call is being served until the context ends.

        Args:
            now: when it has come.
            seconds_left: until its deadline; None if it has none.
        """
        patience = PATIENCE_SECONDS if seconds_left is None else seconds_left
        late_from = now + _SHARE * patience
        insort(self._late_from, late_from)
        try:
            yield
        finally:
            del self._late_from[bisect_left(self._late_from, late_from)]
