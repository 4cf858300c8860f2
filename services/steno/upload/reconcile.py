"""Sees to it that no audio waits for ever because its message was lost."""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

from prometheus_client import Gauge

from steno.platform.messaging import PREPARE, Messaging
from steno.platform.telemetry import received_trace, tracer
from steno.upload.events import Announcer
from steno.upload.store import PreparationStore
from steno.v1.events_pb2 import PrepareMessage

WAITING = Gauge("steno_prepare_waiting", "Audio that nobody prepares yet, counted up to 200.")
PARKED = Gauge(
    "steno_prepare_parked", "Audio whose preparation failed, and of which no slice was cut since."
)

_REMEMBERED = 1000
"""More than wait at a time; who is forgotten is announced once more."""


class Reminder:
    """Announces audio again only where the work queue has lost the message.

    NATS drops the repeat of a message for two minutes. Without this, audio that waits for longer
    would get one more message every two minutes, and the queue grow for as long as nobody prepares.
    """

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging
        self._announcer = Announcer(messaging)
        self._numbers: OrderedDict[tuple[UUID, int], int] = OrderedDict()

    async def waits(self, audio_id: UUID, attempt: int) -> None:
        """An audio waits to be prepared, after so many attempts.

        Raises:
            Unavailable: NATS does not answer.
        """
        await self._messaging.check()
        if await self._is_known(audio_id, attempt):
            return
        number = await self._announcer.waits(audio_id, attempt)
        if number is not None:
            self._numbers[audio_id, attempt] = number
        if len(self._numbers) > _REMEMBERED:
            self._numbers.popitem(last=False)

    async def _is_known(self, audio_id: UUID, attempt: int) -> bool:
        number = self._numbers.get((audio_id, attempt))
        if number is None:
            return False
        message = await self._messaging.stored(PREPARE, number, PrepareMessage)
        return message is not None and message.audio_id == str(audio_id)


async def reconcile(store: PreparationStore, reminder: Reminder) -> None:
    """Announces audio that nobody works on.

    NATS may have been wiped, a process may have died before it published, or a lease ran out.
    Which of them it was does not matter: NATS drops what it knows already, and an attempt that
    ended makes the announcement a new one.
    """
    PARKED.set(await store.parked())
    unprepared = await store.unprepared()
    WAITING.set(len(unprepared))
    for audio in unprepared:
        with tracer.start_as_current_span("announce", context=received_trace(audio.trace)):
            await reminder.waits(audio.audio_id, audio.attempt)
