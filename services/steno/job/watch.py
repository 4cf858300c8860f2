"""Streams of what happens to jobs.

All watchers of a process share one NATS subscription and one look at the database a second. What
is sent comes from the event log: NATS only brings its rows sooner. A watcher that finds a hole in
the revisions, or hears from the database that there are more, reads the log again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from prometheus_client import Gauge

from steno.job.domain import JobNotFound, Standing
from steno.job.messages import ends, render_progress
from steno.job.relay import subject
from steno.job.store import Store
from steno.platform.errors import InvalidArgument
from steno.platform.messaging import Messaging
from steno.v1.events_pb2 import JobEventMessage
from steno.v1.job_pb2 import JobEvent, JobProgress, WatchJobResponse

BATCH = 200

WATCHERS = Gauge("steno_job_watchers", "WatchJob streams that are open.")


class _Listener:
    """What a watcher has not looked at yet.

    A slow reader makes the oldest events fall out, so it costs no more memory than this; it finds
    the hole, and reads the log.
    """

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._events: deque[JobEvent] = deque(maxlen=64)
        self._standing: Standing | None = None
        self._gone = False

    def hear(self, event: JobEvent) -> None:
        """NATS has brought an event."""
        self._events.append(event)
        self._woken.set()

    def see(self, standing: Standing | None) -> None:
        """The database says where the job stands; None when it is gone."""
        self._standing = standing
        self._gone = standing is None
        self._woken.set()

    async def news(self) -> tuple[Sequence[JobEvent], Standing | None, bool]:
        """Waits for something new; returns events, standing, and whether the job is gone."""
        await self._woken.wait()
        self._woken.clear()
        events, standing = list(self._events), self._standing
        self._events.clear()
        self._standing = None
        return events, standing, self._gone


class Watchers:
    """All watchers of this process."""

    def __init__(self, store: Store, messaging: Messaging) -> None:
        self._store = store
        self._messaging = messaging
        self._listeners: dict[UUID, set[_Listener]] = {}

    async def listen(self) -> None:
        """Hands events from NATS to whoever watches their job. Does not return."""
        async with self._messaging.subscribe(subject(">"), JobEventMessage) as messages:
            async for message in messages:
                for listener in self._listeners.get(UUID(message.event.job_id), ()):
                    listener.hear(message.event)

    async def look(self) -> None:
        """Tells all watchers where their jobs stand."""
        job_ids = list(self._listeners)
        if not job_ids:
            return
        standings = await self._store.standings(job_ids)
        for job_id in job_ids:
            for listener in self._listeners.get(job_id, ()):
                listener.see(standings.get(job_id))

    async def watch(self, job_id: UUID, after_revision: int) -> AsyncIterator[WatchJobResponse]:
        """Yields the events of a job after a revision, each once and in order, up to its end.

        Between them comes where the job stands, when that has changed.

        Raises:
            JobNotFound: there is no such job, or no longer.
            InvalidArgument: the job has not come to this revision.
        """
        job = await self._store.get(job_id)
        if after_revision > job.revision:
            raise InvalidArgument.of("after_revision", f"is beyond the last one, {job.revision}")
        if job.state.ended and after_revision == job.revision:
            return
        with self._listening(job_id) as listener:
            async for response in self._follow(job_id, after_revision, listener):
                yield response

    async def _follow(
        self, job_id: UUID, seen: int, listener: _Listener
    ) -> AsyncIterator[WatchJobResponse]:
        shown: JobProgress | None = None
        behind = True
        while True:
            standing, gone = None, False
            events: Sequence[JobEvent]
            if behind:
                events = await self._store.events_after(job_id, seen, BATCH)
                behind = len(events) == BATCH
            else:
                events, standing, gone = await listener.news()
            for event in events:
                if event.revision == seen + 1:
                    yield WatchJobResponse(event=event)
                    seen = event.revision
                    if ends(event):
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
                    yield WatchJobResponse(status=progress)
                    shown = progress

    @contextmanager
    def _listening(self, job_id: UUID) -> Iterator[_Listener]:
        listener = _Listener()
        self._listeners.setdefault(job_id, set()).add(listener)
        WATCHERS.inc()
        try:
            yield listener
        finally:
            WATCHERS.dec()
            self._listeners[job_id].discard(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
