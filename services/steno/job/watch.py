"""Streams of what happens to jobs.

All watchers of a process share one NATS subscription and one poll of the database a second. What
is sent comes from the event log: NATS only says that there is more, for whoever may publish there
could say anything. A watcher that finds a hole in the revisions, or learns from a poll that there
are more, reads the log again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from prometheus_client import Gauge

from steno.job.domain import Job, JobNotFound, Standing
from steno.job.messages import ends, render_event_response, render_progress
from steno.job.relay import subject
from steno.job.store import Store
from steno.platform.errors import InvalidArgument
from steno.platform.messaging import Messaging
from steno.platform.shared import Shared
from steno.platform.subscriber import Subscriber
from steno.v1.events_pb2 import JobEventMessage
from steno.v1.job_pb2 import JobEvent, JobProgress, WatchJobResponse

BATCH = 200

WATCHERS = Gauge("steno_job_watchers", "WatchJob streams that are open.")


@dataclass(frozen=True, slots=True)
class _Update:
    """An event as it goes to watchers: encoded once for all of them."""

    revision: int
    response: bytes
    is_last: bool


_Subscriber = Subscriber[_Update, Standing]


class Watchers:
    """All watchers of this process."""

    def __init__(self, store: Store, messaging: Messaging) -> None:
        self._store = store
        self._messaging = messaging
        self._subscribers: dict[UUID, dict[_Subscriber, None]] = {}
        self._revisions: dict[UUID, int] = {}
        self.woken = asyncio.Event()
        """Set when there are events to `deliver`."""
        self._jobs: Shared[UUID, Job] = Shared(store.get)
        self._logs: Shared[tuple[UUID, int], list[_Update]] = Shared(self._read)

    async def receive(self) -> None:
        """Notes the jobs of which NATS says that they have new events. Does not return."""
        async with self._messaging.subscribe(subject(">"), JobEventMessage) as messages:
            async for message in messages:
                revision = message.event.revision
                with suppress(ValueError):  # it is no id of ours
                    job_id = UUID(message.event.job_id)
                    if job_id in self._subscribers:
                        self._revisions[job_id] = min(
                            self._revisions.get(job_id, revision), revision
                        )
                        self.woken.set()

    async def deliver(self) -> None:
        """Reads the events that NATS has announced from the log, for the watchers of their jobs."""
        while self._revisions:
            revisions, self._revisions = self._revisions, {}
            for job_id, revision, event in await self._store.events_from(revisions, BATCH):
                is_last = ends(JobEvent.FromString(event))
                update = _Update(revision, render_event_response(event), is_last)
                for subscriber in self._subscribers.get(job_id, ()):
                    subscriber.notify(update)

    async def poll(self) -> None:
        """Reads where the watched jobs stand, for all of their watchers."""
        job_ids = list(self._subscribers)
        if not job_ids:
            return
        standings = await self._store.standings(job_ids)
        for job_id in job_ids:
            for subscriber in self._subscribers.get(job_id, ()):
                subscriber.update(standings.get(job_id))

    async def watch(self, job_id: UUID, after_revision: int) -> AsyncIterator[bytes]:
        """Yields the events of a job after a revision, each once and in order, up to its end.

        They come as encoded WatchJobResponses. Between them comes where the job stands, when that
        has changed.

        Raises:
            JobNotFound: there is no such job, or no longer.
            InvalidArgument: the job has not come to this revision.
        """
        with self._subscribed(job_id) as subscriber:
            events = await self._logs.get((job_id, after_revision))
            if not events and await self._has_ended(job_id, after_revision):
                return
            async for response in self._follow(job_id, after_revision, events, subscriber):
                yield response

    async def _has_ended(self, job_id: UUID, revision: int) -> bool:
        """Whether nothing will come after the revision, up to which all has come."""
        job = await self._jobs.get(job_id)
        if revision > job.revision:  # or others have asked before it came so far
            job = await self._store.get(job_id)
        if revision > job.revision:
            raise InvalidArgument.of("after_revision", f"is beyond the last one, {job.revision}")
        return job.state.ended and revision == job.revision

    async def _follow(
        self, job_id: UUID, seen: int, events: Sequence[_Update], subscriber: _Subscriber
    ) -> AsyncIterator[bytes]:
        """Goes on from the events that the log had after a revision."""
        shown: JobProgress | None = None
        standing: Standing | None = None
        gone = False
        behind = len(events) == BATCH
        while True:
            for event in events:
                if event.revision == seen + 1:
                    yield event.response
                    seen = event.revision
                    if event.is_last:
                        return
                elif event.revision > seen:
                    behind = True
                    break
            if gone:
                raise JobNotFound(job_id)
            if standing is not None and standing.job.revision > seen:
                behind = True
            elif standing is not None and standing.job.revision == seen:
                progress = render_progress(standing)
                if progress != shown:
                    yield WatchJobResponse(status=progress).SerializeToString()
                    shown = progress
            standing, gone = None, False
            if behind:
                events = await self._logs.get((job_id, seen))
                behind = len(events) == BATCH
            else:
                events, standing, gone = await subscriber.read()

    async def _read(self, place: tuple[UUID, int]) -> list[_Update]:
        """What the log says after a revision. It has no holes, and only its last can be the end."""
        job_id, seen = place
        events = await self._store.events_after(job_id, seen, BATCH)
        last = len(events) - 1
        return [
            _Update(
                revision=seen + 1 + index,
                response=render_event_response(event),
                is_last=index == last and ends(JobEvent.FromString(event)),
            )
            for index, event in enumerate(events)
        ]

    @contextmanager
    def _subscribed(self, job_id: UUID) -> Iterator[_Subscriber]:
        subscriber = _Subscriber()
        self._subscribers.setdefault(job_id, {})[subscriber] = None
        WATCHERS.inc()
        try:
            yield subscriber
        finally:
            WATCHERS.dec()
            del self._subscribers[job_id][subscriber]
            if not self._subscribers[job_id]:
                del self._subscribers[job_id]
