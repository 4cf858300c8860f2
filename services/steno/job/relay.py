"""Sends the event log to NATS."""

from __future__ import annotations

import asyncio
from uuid import UUID

from steno.job.aside import Aside
from steno.job.outbox import Outbox, UnpublishedEvent
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
        self._aside: Aside[tuple[UUID, int]] = Aside("relay")

    async def relay(self) -> None:
        """Sends what was not sent yet; what can't be sent does not keep the rest from it.

        Raises:
            Unavailable: NATS is away; the events stay in the outbox.
        """
        await self._messaging.check()
        found = BATCH
        while found == BATCH:
            async with self._outbox.unpublished(BATCH, self._aside.keys) as (events, sent):
                ends = await asyncio.gather(*map(self._send, events), return_exceptions=True)
                failed = {}
                for event, error in zip(events, ends, strict=True):
                    if error is None:
                        sent.append(event)
                    else:
                        failed[event.job_id, event.revision] = error
                found = len(events)
            self._aside.all_failed(failed, beside_others=bool(sent))

    async def _send(self, event: UnpublishedEvent) -> None:
        await self._messaging.publish(
            subject(str(event.job_id)),
            JobEventMessage(event=JobEvent.FromString(event.payload)),
            message_id=f"{event.job_id}.{event.revision}",
        )
