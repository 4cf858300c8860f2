"""The nemesis: draws faults by the seed, and does them.

Faults come alone, in pairs and in threes; a quarter of the time there is none. A fault counts only
if it bit: at that moment its victim held a lease, an open transaction or an unanswered call, or
bytes were on the link that it harmed. Others are told of as idle.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from subprocess import SubprocessError

import nats
import psycopg

from faults.catalogue import FAULTS
from faults.fault import Fault, Scene, Strike
from faults.history import NEMESIS
from faults.load import Load
from faults.system import System

TRUCE = 0.25
"""Share of the time in which nothing is harmed anew."""
DRAWN = 3
"""Victims that are drawn for a fault; one is struck."""


class Nemesis:
    """Draws faults by the seed, and does them.

    Three lanes do one fault after the other, each with another victim: so faults come alone, in
    pairs and in threes, and a long one beside several short ones. In a truce none begins any.
    """

    LANES = 3

    def __init__(
        self,
        system: System,
        load: Load,
        seed: int,
        faults: Sequence[str] = tuple(FAULTS),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._seed = seed
        self._system = system
        self._history = load.history
        self._load = load
        self._faults = [FAULTS[name] for name in faults]
        self._say = say
        self._struck: set[str] = set()
        self.strikes: list[Strike] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Harms until `stopping` is set, and heals everything."""
        dice = random.Random(f"{self._seed} truces")
        while not stopping.is_set():
            truce = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(self.LANES):
                    group.create_task(self._lane(random.Random(dice.getrandbits(64)), truce))
                await _until(stopping, dice.uniform(6, 18))
                truce.set()
            await _until(stopping, dice.uniform(6, 18) * TRUCE / (1 - TRUCE))
        self._system.clear()

    async def _lane(self, dice: random.Random, truce: asyncio.Event) -> None:
        while not truce.is_set():
            drawn = self._draw(dice)
            scene = Scene(self._system, self._load, random.Random(dice.getrandbits(64)))
            if drawn:
                await self.strike(*drawn, scene)
            await _until(truce, dice.uniform(0, 1))

    def _draw(self, dice: random.Random) -> tuple[Fault, str] | None:
        (fault,) = dice.choices(self._faults, [fault.weight for fault in self._faults])
        victims = fault.victims(self._system)
        drawn = [dice.choice(victims) for _ in range(DRAWN)] if victims else []
        free = [victim for victim in drawn if victim not in self._struck]
        # Of the links that are drawn, one on which somebody speaks.
        busy = [v for v in free if v in self._system.links and self._system.links[v].busy]
        return (fault, (busy or free)[0]) if free else None

    async def strike(self, fault: Fault, victim: str, scene: Scene) -> None:
        """Does one fault, and writes it down."""
        operation = self._history.begin(NEMESIS, fault.name, victim=victim)
        strike = Strike(fault.name, victim)
        self._struck.add(victim)
        try:
            strike.bite = await fault.strike(scene, victim)
        except (
            AssertionError,
            OSError,
            SubprocessError,
            psycopg.Error,
            nats.errors.Error,
        ) as error:
            # Its victim was away already, harmed by the fault beside it or the one before.
            self._say(f"{fault.name} {victim} missed: {error!r}"[:200])
        finally:
            self._struck.discard(victim)
            self.strikes.append(strike)
            self._history.end(operation, "ok", bite=strike.bite)
        strike.seconds = operation.ended - operation.begun
        self._say(f"{fault.name} {victim} {strike.seconds:.1f} s: {strike.bite or 'idle'}")


async def _until(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
