"""Sends the event log to NATS."""

from __future__ import annotations

import asyncio

from steno.job.outbox import Outbox
from steno.platform.messaging import Messaging
from steno.v1.events_pb2 import JobEventMessage
from steno.v1.job_pb2 import JobEvent

BATCH = 100


def subject(job_id: str) -> str:
    """Where a job's events are sent to; `>` means all jobs."""
    return f"steno.events.job.{job_id}"


class Relay:
    """Empties the outbox. Replicas share it; an event that is sent twice has the same id."""

    def __init__(self, outbox: Outbox, messaging: Messaging) -> None:
        self._outbox = outbox
        self._messaging = messaging

    async def relay(self) -> None:
        """Sends what was not sent yet.

        Raises:
            Unavailable: NATS is away; the events stay in the outbox.
        """
        await self._messaging.check()
        sent = BATCH
        while sent == BATCH:
            async with self._outbox.unpublished(BATCH) as events:
                await asyncio.gather(*map(self._send, events))
                sent = len(events)

    async def _send(self, event: JobEvent) -> None:
        await self._messaging.publish(
            subject(event.job_id),
            JobEventMessage(event=event),
            message_id=f"{event.job_id}.{event.revision}",
        )
