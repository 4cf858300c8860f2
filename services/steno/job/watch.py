"""Streams of what happens to jobs.

All watchers of a process share one NATS subscription and one look at the database a second. What
is sent comes from the event log: NATS only says that there is more, for whoever may publish there
could say anything. A watcher that finds a hole in the revisions, or hears from the database that
there are more, reads the log again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from prometheus_client import Gauge

from steno.job.domain import Job, JobNotFound, Standing
from steno.job.messages import ends, render_progress, render_told
from steno.job.relay import subject
from steno.job.store import Store
from steno.platform.errors import InvalidArgument
from steno.platform.listener import Listener
from steno.platform.messaging import Messaging
from steno.platform.shared import Shared
from steno.v1.events_pb2 import JobEventMessage
from steno.v1.job_pb2 import JobEvent, JobProgress, WatchJobResponse

BATCH = 200

WATCHERS = Gauge("steno_job_watchers", "WatchJob streams that are open.")


@dataclass(frozen=True, slots=True)
class _Told:
    """An event as it goes to watchers: encoded once for all of them."""

    revision: int
    response: bytes
    is_last: bool


_Listener = Listener[_Told, Standing]


class Watchers:
    """All watchers of this process."""

    def __init__(self, store: Store, messaging: Messaging) -> None:
        self._store = store
        self._messaging = messaging
        self._listeners: dict[UUID, dict[_Listener, None]] = {}
        self._revisions: dict[UUID, int] = {}
        self.woken = asyncio.Event()
        """Set when there is something to `tell`."""
        self._jobs: Shared[UUID, Job] = Shared(store.get)
        self._logs: Shared[tuple[UUID, int], list[_Told]] = Shared(self._read)

    async def listen(self) -> None:
        """Hears from NATS which jobs have new events. Does not return."""
        async with self._messaging.subscribe(subject(">"), JobEventMessage) as messages:
            async for message in messages:
                revision = message.event.revision
                with suppress(ValueError):  # it is no id of ours
                    job_id = UUID(message.event.job_id)
                    if job_id in self._listeners:
                        self._revisions[job_id] = min(
                            self._revisions.get(job_id, revision), revision
                        )
                        self.woken.set()

    async def tell(self) -> None:
        """Hands events that were heard of, as the log has them, to whoever watches their job."""
        while self._revisions:
            revisions, self._revisions = self._revisions, {}
            for job_id, revision, event in await self._store.events_from(revisions, BATCH):
                is_last = ends(JobEvent.FromString(event))
                told = _Told(revision, render_told(event), is_last)
                for listener in self._listeners.get(job_id, ()):
                    listener.hear(told)

    async def look(self) -> None:
        """Tells all watchers where their jobs stand."""
        job_ids = list(self._listeners)
        if not job_ids:
            return
        standings = await self._store.standings(job_ids)
        for job_id in job_ids:
            for listener in self._listeners.get(job_id, ()):
                listener.see(standings.get(job_id))

    async def watch(self, job_id: UUID, after_revision: int) -> AsyncIterator[bytes]:
        """Yields the events of a job after a revision, each once and in order, up to its end.

        They come as encoded WatchJobResponses. Between them comes where the job stands, when that
        has changed.

        Raises:
            JobNotFound: there is no such job, or no longer.
            InvalidArgument: the job has not come to this revision.
        """
        with self._listening(job_id) as listener:
            events = await self._logs.get((job_id, after_revision))
            if not events and await self._has_ended(job_id, after_revision):
                return
            async for response in self._follow(job_id, after_revision, events, listener):
                yield response

    async def _has_ended(self, job_id: UUID, revision: int) -> bool:
        """Whether nothing will come after the revision, up to which all has come."""
        job = await self._jobs.get(job_id)
        if revision > job.revision:  # or others had asked before it came so far
            job = await self._store.get(job_id)
        if revision > job.revision:
            raise InvalidArgument.of("after_revision", f"is beyond the last one, {job.revision}")
        return job.state.ended and revision == job.revision

    async def _follow(
        self, job_id: UUID, seen: int, events: Sequence[_Told], listener: _Listener
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
                events, standing, gone = await listener.news()

    async def _read(self, place: tuple[UUID, int]) -> list[_Told]:
        """What the log says after a revision. It has no holes, and only its last can be the end."""
        job_id, seen = place
        events = await self._store.events_after(job_id, seen, BATCH)
        last = len(events) - 1
        return [
            _Told(
                revision=seen + 1 + index,
                response=render_told(event),
                is_last=index == last and ends(JobEvent.FromString(event)),
            )
            for index, event in enumerate(events)
        ]

    @contextmanager
    def _listening(self, job_id: UUID) -> Iterator[_Listener]:
        listener = _Listener()
        self._listeners.setdefault(job_id, {})[listener] = None
        WATCHERS.inc()
        try:
            yield listener
        finally:
            WATCHERS.dec()
            del self._listeners[job_id][listener]
            if not self._listeners[job_id]:
                del self._listeners[job_id]
