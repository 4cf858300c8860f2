"""The ways between processes, as bad as the seed makes them."""

from __future__ import annotations

from simulation.loop import Loop


class Link:
    """A way on which messages take time, and get lost.

    Attributes:
        slow: probability that a message takes long.
        lost: probability that a message, or its answer, is lost.
        longest: seconds that a slow message takes at most.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.slow = 0.0
        self.lost = 0.0
        self.longest = 0.4

    def delay(self) -> float:
        """How long the next message is on its way. Mostly no time: others run before it or not."""
        lot = self._loop.random.random()
        if lot < self.slow:
            return self.longest * self._loop.random.random()
        return 0.0 if lot < 0.7 else 0.01 * lot

    def pauses(self) -> bool:
        """Whether the other end lets others go on in the midst of its work."""
        return self._loop.random.random() < 0.2

    def pause(self) -> float:
        """For how long it does."""
        return self.delay()

    def loses(self) -> bool:
        """Whether the next message is lost."""
        return self.lost > 0.0 and self._loop.random.random() < self.lost

    def heal(self) -> None:
        """Nothing is lost from now on."""
        self.lost = 0.0
