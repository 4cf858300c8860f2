"""What a fault is, and what is told of one that was done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from faults.load import Load
from faults.system import System


@dataclass
class Strike:
    """One fault that was done.

    Attributes:
        fault: its name.
        victim: process or link.
        seconds: how long it lasted.
        bite: what it took from its victim; empty if nothing: then it was idle.
    """

    fault: str
    victim: str
    seconds: float = 0.0
    bite: str = ""


class Scene:
    """What a fault needs: the system, the load, and the seed's dice."""

    def __init__(self, system: System, load: Load, dice: random.Random) -> None:
        self.system = system
        self.load = load
        self.random = dice

    def chance(self) -> bool:
        """One in three: a fault of some answers leaves some."""
        return self.random.random() < 1 / 3

    async def hold(self, least: float, most: float) -> None:
        """Lets the fault last for a while."""
        await asyncio.sleep(self.random.uniform(least, most))


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: by which it is asked for.
        weight: how often it is drawn.
        victims: whom it may strike.
        strike: does it, heals it, also when it is cancelled, and says what it took.
    """

    name: str
    weight: float
    victims: Callable[[System], list[str]]
    strike: Callable[[Scene, str], Awaitable[str]]
