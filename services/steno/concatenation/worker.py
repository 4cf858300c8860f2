"""The work behind sessions: decoding, joining, live results, finishing.

Each session with work to do is leased by one replica. When that dies, the lease runs out, and
another replica goes on from what is on record. What a replica writes is fenced by the number of its
attempt, which rises when another takes the session, not when the lease runs out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import grpc
from prometheus_client import Gauge

from steno.audio import DecoderFailed, VadModel
from steno.concatenation.decode import Decoder
from steno.concatenation.domain import (
    Lease,
    RecordingExists,
    Session,
    SessionNotFound,
    StaleLease,
)
from steno.concatenation.finish import Finisher
from steno.concatenation.latest import Latest
from steno.concatenation.live import LiveTranscript
from steno.concatenation.metrics import TAKEOVERS
from steno.concatenation.recent import RecentObjects
from steno.concatenation.recording import Recordings
from steno.concatenation.settings import Settings
from steno.concatenation.store import Store
from steno.concatenation.watch import Watchers
from steno.concatenation.windows import Windows
from steno.platform import database, loops
from steno.platform.ending import ended
from steno.platform.errors import AWAY_CODES, Unavailable, read_failure
from steno.platform.loops import Signal
from steno.platform.objects import ObjectNotFound
from steno.platform.outage import OutageGuard
from steno.platform.telemetry import log_context, received_trace, tracer

log = logging.getLogger(__name__)

WORKED_ON = Gauge("steno_sessions_worked_on", "Sessions whose lease this process holds.")

E = TypeVar("E", bound=Exception)

AWAY = (*loops.AWAY, grpc.aio.AioRpcError)
"""Something behind this process does not answer, or not as it should: nobody's fault."""

REFUSED = "DEPENDENCY_REFUSED"
"""Reason of what a service does not do that was asked."""

AWAY_PAUSE = timedelta(seconds=10)
"""Longest pause before what was away is asked again."""

_CLAIM_AT_ONCE = 20
_HAND_BACK_SECONDS = 5.0
_LIVE_PAUSES = (1.0, 5.0, 25.0)
"""Before live results that failed are tried again at the same place."""

_RENEW_TRIES = 3
_RENEW_AGAIN_SECONDS = 0.3
"""Pause after a failure to renew: little of a lease is left."""
_RENEW_PAUSE_SECONDS = 0.05
"""A chunk locks its session's row for less than that."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A session that is worked on."""

    lease: Lease
    task: asyncio.Task[None]
    woken: asyncio.Event


class Workers:
    """All sessions that this process works on."""

    def __init__(
        self,
        store: Store,
        objects: RecentObjects,
        recordings: Recordings,
        watchers: Watchers,
        finisher: Finisher,
        windows: Windows,
        vad: VadModel,
        settings: Settings,
    ) -> None:
        self._store = store
        self._objects = objects
        self._recordings = recordings
        self._watchers = watchers
        self._finisher = finisher
        self._windows = windows
        self._vad = vad
        self._lease = settings.session_lease
        self._poll_seconds = settings.session_poll_seconds
        self._grace = settings.session_grace
        self._longest_pause = settings.session_max_pause
        self._most = settings.session_max_worked_on
        self._sweep_seconds = settings.session_sweep_seconds
        self._outages = OutageGuard(settings.session_lease_seconds, settings.session_sweep_seconds)
        self._working: dict[UUID, _Held] = {}
        self.changed = Signal()
        """Called when the log of a session has grown on this replica."""
        self._unclaimed = asyncio.Event()
        WORKED_ON.set_function(lambda: len(self._working))

    @property
    def unclaimed(self) -> asyncio.Event:
        """Set when there may be a session that nobody works on."""
        return self._unclaimed

    def notify(self, session_id: UUID) -> None:
        """Has the work on a session go on at once, or begin: it has changed on this replica."""
        if session_id in self._working:
            self._working[session_id].woken.set()
        else:
            self._unclaimed.set()

    async def claim(self) -> None:
        """Begins to work on sessions that nobody works on.

        A few at a time: the more a replica has already, the longer it leaves others the next.
        """
        try:
            lost = await self._store.any_lost()
            if self._outages.answered() and lost:
                await self._store.park_lost(self._longest_pause)
            await self._claim()
        except database.AWAY:
            self._outages.interrupted()
            raise

    async def _claim(self) -> None:
        while (room := min(_CLAIM_AT_ONCE, self._most - len(self._working))) > 0:
            found = await self._store.claim(room, self._lease)
            self._outages.answered()
            for lease, session in found:
                self._begin(lease, session)
            if len(found) < room:
                return
            await asyncio.sleep(self._sweep_seconds * len(self._working) / self._most)

    def _begin(self, lease: Lease, session: Session) -> None:
        if lease.attempt > 1:
            TAKEOVERS.labels("work").inc()
        before = self._working.get(lease.session_id)
        if before is not None:  # its lease ran out without it noticing
            before.task.cancel()
        woken = asyncio.Event()
        task = asyncio.create_task(self._work(lease, session, woken))
        self._working[lease.session_id] = _Held(lease, task, woken)
        task.add_done_callback(partial(self._ended, lease.session_id))

    def _ended(self, session_id: UUID, task: asyncio.Task[None]) -> None:
        if session_id in self._working and self._working[session_id].task is task:
            del self._working[session_id]

    async def renew(self) -> None:
        """Keeps the leases of all sessions that are worked on; ends work whose lease is lost.

        Does not return while the database is away.
        """
        while True:
            try:
                return await self._renew()
            except database.AWAY as error:
                log.warning("will try again: %s", error, extra={"action": "renew"})
                await asyncio.sleep(_RENEW_AGAIN_SECONDS)

    async def _renew(self) -> None:
        left = list(self._working.values())
        for _ in range(_RENEW_TRIES):
            if not left:
                return
            renewed, held = await self._store.renew([each.lease for each in left], self._lease)
            for each in left:
                if each.lease.session_id not in held:
                    log.warning("%s", StaleLease(each.lease), extra={"action": "renew"})
                    each.task.cancel()
            left = [each for each in left if each.lease.session_id in held - renewed]
            await asyncio.sleep(_RENEW_PAUSE_SECONDS)

    async def stop(self) -> None:
        """Hands back what is being worked on."""
        working = list(self._working.values())
        await ended(*(each.task for each in working))
        with suppress(*database.AWAY, TimeoutError):  # else the leases run out by themselves
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                await self._store.end_leases([each.lease for each in working])

    async def _work(self, lease: Lease, session: Session, woken: asyncio.Event) -> None:
        with log_context(session_id=str(lease.session_id)):
            await self._try(lease, session, woken)

    async def _try(self, lease: Lease, session: Session, woken: asyncio.Event) -> None:
        try:
            try:
                await self._lanes(lease, Latest(session, self.changed), woken)
            except* ObjectNotFound:
                if not await self._salvaged(lease):
                    raise
        except* (StaleLease, SessionNotFound) as errors:
            log.warning("%s", _first(errors), extra={"action": "work"})
        except* DecoderFailed as errors:
            error = _first(errors)
            log.warning("will try again: %s", error, extra={"action": "decode"})
            await self._park(lease, error.reason, error.message)
        except* ObjectNotFound as errors:
            log.error("bytes are missing: %s", _first(errors), extra={"action": "work"})
            why = (
                "What the recording is made of is not in the object store. Restore it there, or"
                " delete the session."
            )
            await self._park(lease, ObjectNotFound.reason, why)
        except* RecordingExists as errors:
            log.error("%s", _first(errors), extra={"action": "work"})
            await self._park(lease, RecordingExists.reason, str(_first(errors)))
        except* AWAY as errors:
            log.warning("will go on later: %r", _first(errors), extra={"action": "work"})
            await self._park(lease, *_why_away(_first(errors)))
        except* Exception:
            log.exception("failed, will try again", extra={"action": "work"})
            why = "The work behind the session failed; the service's log has the cause."
            await self._park(lease, "INTERNAL", why)

    async def _park(
        self, lease: Lease, reason: str, message: str, longest: timedelta | None = None
    ) -> None:
        """Lets go of a session after a failure, whosever it was: it is tried again later.

        Not even bytes that end their decoder each time are given up: it may as well be the machine.
        """
        longest = min(longest or self._longest_pause, self._longest_pause)
        with suppress(*AWAY):  # else the lease runs out by itself
            await self._store.park(lease, reason, message, longest)

    async def _salvaged(self, lease: Lease) -> bool:
        """Finishes a session with its file, where chunks are gone; returns whether there is one.

        A database that was restored may be older than the bucket: it has a session still to be
        finished of which the bucket has the file, and the chunks no more.
        """
        session = await self._store.get(lease.session_id)
        if not session.state.ended:
            return False
        try:
            frames = await self._recordings.frames_of_file(session)
        except ObjectNotFound:
            return False
        if frames < max(1, session.frame_count):
            return False
        log.warning("its chunks are gone, its file is there", extra={"action": "work"})
        session = await self._store.adopt(lease, frames, "The chunks are gone.")
        session = await self._finisher.import_audio(lease, session)
        await self._finisher.make_job(lease, session)
        await self._store.finish(lease, self._grace)
        return True

    async def _lanes(self, lease: Lease, latest: Latest, woken: asyncio.Event) -> None:
        """Does all there is to do for one session, side by side."""
        session = latest.session
        async with asyncio.TaskGroup() as lanes:
            polling = lanes.create_task(self._poll(latest, woken))
            joining = lanes.create_task(self._join(lease, latest))
            others = [lanes.create_task(self._finish(lease, latest, joining))]
            if session.config.is_container:
                decoder = Decoder(lease, self._store, self._objects, latest)
                others.append(lanes.create_task(decoder.run()))
            if session.config.live_results:
                others.append(lanes.create_task(self._transcribe(lease, latest)))
            await asyncio.gather(*others)
            polling.cancel()
        await self._store.finish(lease, self._grace)

    async def _poll(self, latest: Latest, woken: asyncio.Event) -> None:
        """Keeps `latest` new: at once when this replica has changed it, else by polling."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await woken.wait()
            woken.clear()
            known = latest.session
            try:
                session = await self._store.get(known.session_id)
            except loops.AWAY:
                continue
            if session.is_behind(known):
                # As after a failover to a server that had not got all: go on from what it has.
                raise Unavailable("the database has gone back to an earlier state")
            latest.update(session)

    async def _transcribe(self, lease: Lease, latest: Latest) -> None:
        """Makes live results; where that fails, the other lanes go on.

        After failures in a row at one place there are none any more: the recording matters more.
        """
        failures, place = 0, -1
        while True:
            live = LiveTranscript(
                lease,
                self._store,
                self._recordings,
                latest,
                self._vad,
                self._windows,
                partial(self._watchers.publish, lease.session_id),
            )
            try:
                await live.run()
                return
            except (StaleLease, SessionNotFound, ObjectNotFound, *AWAY):
                raise
            except Exception:
                log.exception("live results failed, will try again", extra={"action": "live"})
            at = latest.session.live_frame_count
            failures, place = failures + 1 if at == place else 1, at
            if failures > len(_LIVE_PAUSES):
                why = "Live results failed again and again; the service's log has the cause."
                latest.update(await self._store.end_live(lease, why))
                return
            await asyncio.sleep(_LIVE_PAUSES[failures - 1])

    async def _join(self, lease: Lease, latest: Latest) -> None:
        """Joins parts while the recording grows, and what nobody has joined before its end."""
        while True:
            before = latest.session
            joined = await self._recordings.join(lease, before)
            latest.update(joined)
            if joined.part_count == before.part_count:
                if before.drained:
                    return
                length = before.frame_count
                await latest.until(
                    lambda s, length=length: s.frame_count > length or s.drained  # type: ignore[misc]
                )

    async def _finish(self, lease: Lease, latest: Latest, joining: asyncio.Task[None]) -> None:
        """Makes an audio and a job of the recording once it has ended, and is joined."""
        await joining
        session = await latest.until(lambda s: s.state.ended and s.drained)
        steps: tuple[Callable[[Lease, Session], Awaitable[Session]], ...] = (
            self._finisher.make_audio,
            self._finisher.make_job,
        )
        with tracer.start_as_current_span("finish", context=received_trace(lease.trace)):
            for step in steps:
                session = await step(lease, session)
                latest.update(session)


def _why_away(error: Exception) -> tuple[str, str, timedelta | None]:
    """Reason, message, and longest pause: a service that says no will say so again."""
    reason, pause = Unavailable.reason, AWAY_PAUSE
    if not isinstance(error, grpc.aio.AioRpcError):
        return (
            reason,
            "A server that is needed does not answer; the service's log says which.",
            pause,
        )
    failure = read_failure(error)
    message = f"A service that is needed answers {failure.code.name}: {failure.message}"
    return (reason, message, pause) if failure.code in AWAY_CODES else (REFUSED, message, None)


def _first(errors: ExceptionGroup[E]) -> E:
    """The first of the errors, which may lie in a group of a group."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
