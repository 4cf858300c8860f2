"""Streams of what happens to sessions.

All watchers of a process share one NATS subscription and one query of the database. Events come
from the log: NATS only says that there are more, for whoever may publish there could say anything,
and an event can end a producer's stream. A watcher that finds a hole in the revisions, or that
the database has more of them, reads the log again. Interim results and speech events are
not in the log: who misses one sees the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import UUID

from prometheus_client import Gauge

from steno.concatenation.domain import Session, SessionNotFound
from steno.concatenation.messages import render_status
from steno.concatenation.store import Store
from steno.platform.errors import InvalidArgument, ResourceExhausted, Unavailable
from steno.platform.messaging import Messaging
from steno.platform.subscriber import Subscriber
from steno.v1.concatenation_pb2 import SessionEvent, SessionStatus, WatchSessionResponse
from steno.v1.events_pb2 import SessionEventMessage

log = logging.getLogger(__name__)

BATCH = 200

WATCHERS = Gauge(
    "steno_session_watchers",
    "WatchSession and StreamAudio streams, and waiting CloseSession calls.",
)

Update = WatchSessionResponse
"""What viewers are sent: an event, an interim result, a speech event or a status."""


def subject(session_id: str) -> str:
    """Where a session's events are sent to; `>` means all sessions."""
    return f"steno.events.session.{session_id}"


class _Subscriber(Subscriber[Update, Session]):
    """One watcher."""

    __slots__ = ("counted",)

    def __init__(self, *, counted: bool) -> None:
        super().__init__()
        self.counted = counted


class Watchers:
    """All watchers of this process."""

    def __init__(self, store: Store, messaging: Messaging, max_viewers: int) -> None:
        self._store = store
        self._messaging = messaging
        self._max_viewers = max_viewers
        self._subscribers: dict[UUID, dict[_Subscriber, None]] = {}
        self._revisions: dict[UUID, int] = {}
        self.woken = asyncio.Event()
        """Set when there are events to `deliver`."""

    async def receive(self) -> None:
        """Receives from NATS what is not in the log, and which sessions have new events there.

        Does not return.
        """
        async with self._messaging.subscribe(subject(">"), SessionEventMessage) as messages:
            async for message in messages:
                with suppress(ValueError):  # it is no id of ours
                    self._note(UUID(message.session_id), message.told)

    def _note(self, session_id: UUID, update: Update) -> None:
        if update.WhichOneof("payload") in ("interim", "speech"):
            self._hand_out(session_id, update)
        elif update.HasField("event") and session_id in self._subscribers:
            revision = update.event.revision
            self._revisions[session_id] = min(self._revisions.get(session_id, revision), revision)
            self.woken.set()

    async def deliver(self) -> None:
        """Hands events that NATS has announced, as the log has them, to whoever watches."""
        while self._revisions:
            revisions, self._revisions = self._revisions, {}
            for session_id, event in await self._store.events_from(revisions, BATCH):
                self._hand_out(session_id, Update(event=event))

    async def publish(self, session_id: UUID, update: Update) -> None:
        """Tells the watchers of all replicas something that is not in the log."""
        self._hand_out(session_id, update)
        try:
            await self._messaging.check()
            await self._messaging.publish(
                subject(str(session_id)),
                SessionEventMessage(session_id=str(session_id), told=update),
            )
        except Unavailable as error:
            log.info("not published: %s", error, extra={"action": "publish"})

    def _hand_out(self, session_id: UUID, update: Update) -> None:
        for subscriber in self._subscribers.get(session_id, ()):
            subscriber.notify(update)

    async def poll(self) -> None:
        """Tells all watchers how their sessions are."""
        session_ids = list(self._subscribers)
        if not session_ids:
            return
        sessions = await self._store.get_all(session_ids)
        for session_id in session_ids:
            for subscriber in self._subscribers.get(session_id, ()):
                _show(subscriber, session_id, sessions)

    async def relay(self) -> None:
        """Sends the log to NATS. Replicas share it; what is sent twice has the same id.

        Raises:
            Unavailable: NATS is away; the events stay in the log.
        """
        await self._messaging.check()
        sent = BATCH
        while sent == BATCH:
            async with self._store.unpublished(BATCH) as payloads:
                await asyncio.gather(*map(self._send, payloads))
                sent = len(payloads)

    async def _send(self, payload: bytes) -> None:
        """Sends an event. One that can't be sent, ever, holds up no others: it is in the log."""
        try:
            event = SessionEvent.FromString(payload)
            await self._messaging.publish(
                subject(event.session_id),
                SessionEventMessage(session_id=event.session_id, told=Update(event=event)),
                message_id=f"{event.session_id}.{event.revision}",
            )
        except Unavailable:
            raise
        except Exception:
            log.exception("not sent, is read from the log", extra={"action": "relay"})

    async def watch(
        self, session_id: UUID, after_revision: int, *, counted: bool = True
    ) -> AsyncGenerator[Update, None]:
        """Yields the events after a revision, each once and in order, and what comes between.

        Args:
            session_id: the session.
            after_revision: last one that the caller knows.
            counted: among the session's viewers.

        Raises:
            SessionNotFound: there is no such session, or no longer.
            InvalidArgument: the session has not come to this revision.
            ResourceExhausted: too many watch it.
        """
        session = await self._store.get(session_id)
        if after_revision > session.revision:
            raise InvalidArgument.of(
                "after_revision", f"is beyond the last one, {session.revision}"
            )
        if counted:
            viewers = sum(each.counted for each in self._subscribers.get(session_id, ()))
            if viewers >= self._max_viewers:
                raise ResourceExhausted(
                    f"{viewers} watch this session already",
                    timedelta(seconds=10),
                    "TOO_MANY_VIEWERS",
                )
        with self._subscribed(session_id, counted) as subscriber:
            async for update in self._follow(session_id, after_revision, subscriber):
                yield update

    async def _follow(
        self, session_id: UUID, seen: int, subscriber: _Subscriber
    ) -> AsyncGenerator[Update, None]:
        shown: SessionStatus | None = None
        recent: deque[Update] = deque(maxlen=16)
        behind = True
        while True:
            session, gone = None, False
            updates: Sequence[Update]
            if behind:
                events = await self._store.events_after(session_id, seen, BATCH)
                behind = len(events) == BATCH
                updates = [Update(event=event) for event in events]
                _show(subscriber, session_id, await self._store.get_all([session_id]))
            else:
                updates, session, gone = await subscriber.read()
            for update in updates:
                if not update.HasField("event"):
                    if update not in recent:  # what this replica publishes comes back by NATS
                        recent.append(update)
                        yield update
                elif update.event.revision == seen + 1:
                    yield update
                    seen = update.event.revision
                elif update.event.revision > seen:
                    behind = True
                    break
            if gone:
                raise SessionNotFound(session_id)
            if session is None:
                continue
            if session.revision > seen:
                behind = True
            elif session.revision == seen:
                status = render_status(session)
                if status != shown:
                    yield Update(status=status)
                    shown = status
                if session.finished:
                    return

    @contextmanager
    def _subscribed(self, session_id: UUID, counted: bool) -> Iterator[_Subscriber]:
        subscriber = _Subscriber(counted=counted)
        self._subscribers.setdefault(session_id, {})[subscriber] = None
        WATCHERS.inc()
        try:
            yield subscriber
        finally:
            WATCHERS.dec()
            del self._subscribers[session_id][subscriber]
            if not self._subscribers[session_id]:
                del self._subscribers[session_id]


def _show(
    subscriber: _Subscriber, session_id: UUID, sessions: Mapping[UUID, Session | None]
) -> None:
    """Tells a watcher how its session is. One that can't be read is not gone."""
    session = sessions.get(session_id)
    if session is not None or session_id not in sessions:
        subscriber.update(session)
