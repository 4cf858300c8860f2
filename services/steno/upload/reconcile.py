"""Sees to it that no audio waits for ever because its message was lost."""

from __future__ import annotations

from prometheus_client import Gauge

from steno.platform.telemetry import received_trace, tracer
from steno.upload.events import Announcer
from steno.upload.store import PreparationStore

WAITING = Gauge("steno_prepare_waiting", "Audio that nobody prepares yet, counted up to 200.")


async def reconcile(store: PreparationStore, announcer: Announcer) -> None:
    """Announces audio that nobody works on.

    NATS may have been wiped, a process may have died before it published, or a lease ran out.
    Which of them it was does not matter: NATS drops what it knows already, and an attempt that
    ended makes the announcement a new one.
    """
    unprepared = await store.unprepared()
    WAITING.set(len(unprepared))
    for audio in unprepared:
        with tracer.start_as_current_span("announce", context=received_trace(audio.trace)):
            await announcer.waits(audio.audio_id, audio.attempt)
