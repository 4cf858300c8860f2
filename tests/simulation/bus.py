"""NATS in memory: what `steno.platform.messaging.Messaging` offers, as unreliable as it may be.

The server may be away and may be wiped. What is published may be stored though the sender does not
learn of it; what is listened to may come late, twice, out of order, or not at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from simulation.links import Link
from simulation.loop import Loop, Process
from steno.platform.errors import Unavailable
from steno.v1.events_pb2 import TaskMessage

M = TypeVar("M", bound=Message)

ACK_WAIT = 6.0
"""Seconds of silence after which a message is given to another worker."""
DUPLICATES_WINDOW = 120.0
"""Seconds in which a message with the same id is dropped."""
AWAY_SECONDS = 0.5
"""After which whoever asks a server that is away gives up."""


@dataclass(slots=True)
class _Stored:
    """A message of the work queue.

    Attributes:
        payload: what it says.
        free_at: when it may be given to a worker.
    """

    payload: TaskMessage
    free_at: float


@dataclass(frozen=True, slots=True)
class Published:
    """A message that the server took, or dropped as a repeat."""

    time: float
    message_id: str


@dataclass(eq=False, slots=True)
class _Subscription(Generic[M]):
    prefix: str
    kind: type[M]
    received: deque[M] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None
    over: bool = False

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def receive(self, message: M) -> None:
        self.received.append(message)
        self.wake()

    async def messages(self) -> AsyncIterator[M]:
        while True:
            while self.received:
                yield self.received.popleft()
            if self.over:
                return
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


class Bus:
    """The server."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self.loop = loop
        self.link = link
        self.away = False
        self.doubles = 0.0
        """Probability that a message is given out twice."""
        self.published: list[Published] = []
        self._context = Process("nats").context
        self._numbers: dict[str, tuple[int, float]] = {}
        self._tasks: dict[int, _Stored] = {}
        self._last = 0
        self._subscriptions: list[_Subscription[Any]] = []
        self._takers: deque[asyncio.Future[None]] = deque()

    def take_in(self, subject: str, message: Message, message_id: str) -> int:
        """Stores a message, and gives it to whoever listens; answers its number."""
        now = self.loop.time()
        if message_id:
            self.published.append(Published(now, message_id))
            number, since = self._numbers.get(message_id, (0, 0.0))
            if number and now - since < DUPLICATES_WINDOW:
                return number
        self._last += 1
        if message_id:
            self._numbers[message_id] = (self._last, now)
        if isinstance(message, TaskMessage):
            self._tasks[self._last] = _Stored(message, now)
            self._offer()
        for subscription in self._subscriptions:
            if subject.startswith(subscription.prefix):
                self._give(subscription, message)
        return self._last

    def _give(self, subscription: _Subscription[Any], message: Message) -> None:
        for _ in range(1 + self.loop.chance(self.doubles)):
            if self.link.loses():
                continue
            delay = self.link.delay()
            self.loop.call_later(delay, subscription.receive, message, context=self._context)

    def wipe(self) -> None:
        """All it has stored is gone; numbers begin anew, and so do connections."""
        self._numbers.clear()
        self._tasks.clear()
        self._last = 0
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            subscription.over = True
            subscription.wake()

    def stored(self, number: int) -> TaskMessage | None:
        found = self._tasks.get(number)
        return found.payload if found is not None else None

    @asynccontextmanager
    async def listening(self, prefix: str, kind: type[M]) -> AsyncIterator[AsyncIterator[M]]:
        subscription = _Subscription(prefix, kind)
        self._subscriptions.append(subscription)
        try:
            yield subscription.messages()
        finally:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    async def next(self, timeout: float) -> tuple[int, TaskMessage] | None:
        """Gives a worker a message of the work queue; it is given to another if it stays silent."""
        deadline = self.loop.time() + timeout
        while True:
            free = [
                number for number, each in self._tasks.items() if each.free_at <= self.loop.time()
            ]
            if free and not self.away:
                number = free[int(len(free) * self.loop.random.random())]
                found = self._tasks[number]
                if not self.loop.chance(self.doubles):
                    self._free_at(found, ACK_WAIT)
                return number, found.payload
            left = deadline - self.loop.time()
            if left <= 0:
                return None
            taker: asyncio.Future[None] = self.loop.create_future()
            self._takers.append(taker)
            try:
                async with asyncio.timeout(left):
                    await taker
            except TimeoutError:
                return None

    def ack(self, number: int) -> None:
        self._tasks.pop(number, None)

    def nak(self, number: int, delay: float) -> None:
        found = self._tasks.get(number)
        if found is not None:
            self._free_at(found, delay)

    def in_progress(self, number: int) -> None:
        self.nak(number, ACK_WAIT)

    def _free_at(self, stored: _Stored, delay: float) -> None:
        stored.free_at = self.loop.time() + delay
        self.loop.call_later(delay, self._offer, context=self._context)

    def _offer(self) -> None:
        takers, self._takers = self._takers, deque()
        for taker in takers:
            if not taker.done():
                taker.set_result(None)


class Messaging:
    """A process's connection to the server."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = bus.loop

    async def check(self) -> None:
        if self._bus.away:
            raise Unavailable("the message server is not connected")

    async def publish(self, subject: str, message: Message, *, message_id: str = "") -> int:
        await self._reach()
        number = self._bus.take_in(subject, message, message_id)
        if self._loop.trace is not None:
            self._loop.trace(f"nats: {subject} is published as {number}")
        await self._reach()
        return number

    async def stored(self, stream: str, sequence: int, kind: type[M]) -> M | None:
        await self._reach()
        return self._bus.stored(sequence)  # type: ignore[return-value]

    @asynccontextmanager
    async def subscribe(self, subject: str, kind: type[M]) -> AsyncIterator[AsyncIterator[M]]:
        await asyncio.sleep(self._bus.link.delay())
        async with self._bus.listening(subject.removesuffix(">"), kind) as messages:
            yield messages

    async def _reach(self) -> None:
        """Is there and answers, or is away."""
        bus = self._bus
        if bus.away:
            await asyncio.sleep(AWAY_SECONDS)
        else:
            await asyncio.sleep(bus.link.delay())
        if bus.away or bus.link.loses():
            raise Unavailable("the message server does not answer; try again")
