"""What this service tells the others. Postgres holds the truth, so a lost message is no loss."""

from __future__ import annotations

import logging
from uuid import UUID

from google.protobuf.message import Message

from steno.platform.errors import Unavailable
from steno.platform.messaging import Messaging
from steno.upload.domain import AudioState
from steno.upload.messages import render_event
from steno.v1.events_pb2 import PrepareMessage

log = logging.getLogger(__name__)

PREPARE_SUBJECT = "steno.prepare"


class Announcer:
    """Sends what happened after it was committed. Never raises: whoever misses it asks."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    async def waits(self, audio_id: UUID, attempt: int) -> int | None:
        """An audio waits to be prepared, after so many attempts.

        Saying it again is cheap: NATS drops the repeat of a message that it knows. Returns the
        message's number in its stream; None if it was not sent.
        """
        return await self._send(
            PREPARE_SUBJECT, PrepareMessage(audio_id=str(audio_id)), f"{audio_id}.{attempt}"
        )

    async def changed(
        self, audio_id: UUID, state: AudioState, slice_count: int, *, deleted: bool = False
    ) -> None:
        """An audio has a new slice, is final, or is gone."""
        event = render_event(audio_id, state, slice_count, deleted=deleted)
        await self._send(f"steno.events.audio.{audio_id}", event)

    async def _send(self, subject: str, message: Message, message_id: str = "") -> int | None:
        try:
            await self._messaging.check()  # a caller should not wait for a server that is away
            return await self._messaging.publish(subject, message, message_id=message_id)
        except Unavailable as error:
            log.warning("not announced: %s", error, extra={"action": "announce"})
            return None
