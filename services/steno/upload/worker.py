"""The work loop of the preparation: takes audio by turns, and sees each attempt to an end.

An audio is leased for one attempt at a time, and everything that an attempt writes is fenced. What
goes wrong is either the verdict of the decoder on the bytes, which rejects the audio, or says
nothing of them: then the audio waits for another attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from typing import TypeVar

from prometheus_client import Counter

from steno.audio import AudioError, AudioRejected, DecoderFailed, Reason
from steno.platform.ending import undisturbed
from steno.platform.errors import Unavailable
from steno.platform.leases import kept, until_answered
from steno.platform.loops import AWAY
from steno.platform.messaging import WorkQueue, settle
from steno.platform.objects import ObjectNotFound
from steno.platform.telemetry import log_context, received_trace, tracer
from steno.upload.domain import Failure, Lease, Rejection, StaleLease
from steno.upload.events import Announcer
from steno.upload.settings import PrepareSettings
from steno.upload.store import PreparationStore
from steno.upload.turns import LONG_SAMPLES, LongPlace, LongPlaces, TurnOver
from steno.v1.events_pb2 import PrepareMessage

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = Counter("steno_prepare_attempts", "Attempts to prepare an audio, by their end.", ["end"])
REJECTED = Counter("steno_prepare_rejected", "Audio that can't be transcribed.", ["reason"])

AWAY_PAUSE = timedelta(seconds=2)
ANSWER_PAUSE = timedelta(seconds=1)


class DecoderBroken(Exception):
    """No recording can be decoded here: this process is of no use any more."""


class Worker:
    """Prepares audio: as many at once as `run` is called at once."""

    def __init__(
        self,
        store: PreparationStore,
        announcer: Announcer,
        prepare: Callable[[Lease, LongPlace], Awaitable[None]],
        settings: PrepareSettings,
    ) -> None:
        """Takes what it works with.

        Args:
            store: has the audio.
            announcer: tells of what is rejected.
            prepare: makes one attempt; see Preparation.prepare.
            settings: of the process.
        """
        self._store = store
        self._announcer = announcer
        self._prepare = prepare
        self._lease = timedelta(seconds=settings.prepare_lease_seconds)
        self._grace = timedelta(hours=settings.audio_grace_hours)
        self._long_places = LongPlaces(settings.prepare_at_once - 1)
        self._broken = False

    async def run(self, queue: WorkQueue[PrepareMessage]) -> None:
        """Prepares one audio after the other, as long as a decoder can be started.

        A machine on which none can would else take one audio after the other, and prepare none. A
        message says that some audio waits; whose turn it is, Postgres knows.

        Raises:
            DecoderBroken: none can be started.
        """
        while not self._broken:
            try:
                if await self.next():
                    continue
            except AWAY as error:
                log.warning("will try again: %s", error, extra={"action": "lease"})
            delivery = await queue.next()
            if delivery is not None:
                await settle(delivery, _read)
        raise DecoderBroken("no decoder can be started")

    async def next(self) -> bool:
        """Prepares the audio whose turn it is, to the end or until its turn is over.

        What goes wrong is written down, not raised: the audio comes again when the time is right.
        Returns False if none waits for which there is a place.
        """
        lease = await self._take()
        if lease is None:
            return False
        with (
            self._long_places.place() as long,
            tracer.start_as_current_span("prepare", context=received_trace(lease.trace)),
            log_context(audio_id=str(lease.audio_id)),
        ):
            try:
                end = await self._attempt(lease, long)
            except StaleLease as error:
                log.warning("%s", error, extra={"action": "prepare"})
                end = "stale"
            ATTEMPTS.labels(end).inc()
        return True

    async def _take(self) -> Lease | None:
        """Takes the next audio; gives it back if this task is cancelled meanwhile."""
        below = None if self._long_places.free else LONG_SAMPLES
        taking = asyncio.create_task(self._store.lease(self._lease, below))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            await undisturbed(self._undo(taking))
            raise

    async def _undo(self, taking: asyncio.Task[Lease | None]) -> None:
        with suppress(StaleLease, *AWAY):  # else the lease runs out by itself
            if lease := await taking:
                await self._store.hand_back(lease)

    async def _attempt(self, lease: Lease, long: LongPlace) -> str:
        """Makes one attempt; returns how it ended. Raises StaleLease."""
        log.info("attempt %d", lease.attempt, extra={"action": "prepare"})
        try:
            async with self._kept(lease):
                await self._prepare(lease, long)
        except StaleLease:
            raise
        except TurnOver:
            await self._ended(lambda: self._store.hand_back(lease))
            return "turn"
        except AudioRejected as error:
            return await self._reject(lease, Rejection(error.reason, error.message))
        except asyncio.CancelledError:
            with suppress(StaleLease, *AWAY):  # else the lease runs out by itself
                await undisturbed(self._store.hand_back(lease))
            raise
        except Exception as error:
            if isinstance(error, DecoderFailed) and error.reason is Reason.DECODER_UNAVAILABLE:
                self._broken = True
            elif not isinstance(error, AWAY):
                return await self._fail(lease, error)
            return await self._put_off(lease, error)
        return "ready"

    async def _put_off(self, lease: Lease, error: Exception) -> str:
        """Hands the audio back for a while: it is not its fault."""
        log.warning("will go on later: %s", error, extra={"action": "prepare"})
        await self._ended(lambda: self._store.put_off(lease, failure_of(error), AWAY_PAUSE))
        return "away"

    async def _fail(self, lease: Lease, error: Exception) -> str:
        """Parks the audio: whose fault it is, nobody knows, so its bytes stay."""
        await self._ended(lambda: self._store.fail(lease, failure_of(error)))
        log.error("the attempt failed", exc_info=error, extra={"action": "prepare"})
        return "failed"

    async def _reject(self, lease: Lease, rejection: Rejection) -> str:
        audio = await self._ended(lambda: self._store.reject(lease, rejection, self._grace))
        REJECTED.labels(rejection.reason).inc()
        log.warning("rejected: %s", rejection.reason, extra={"action": "prepare"})
        await self._announcer.changed(audio.audio_id, audio.state, audio.slice_count)
        return "rejected"

    def _kept(self, lease: Lease) -> AbstractAsyncContextManager[None]:
        """Keeps the lease. An attempt that has lost it is refused at its next write."""
        return kept(
            lambda: self._store.renew(lease, self._lease),
            self._lease.total_seconds() / 3,
            StaleLease,
            stops_work=False,
        )

    async def _ended(self, end: Callable[[], Awaitable[T]]) -> T:
        """Ends a lease, and tries again while Postgres is away.

        A lease that nobody ended runs out, which counts as a failure. Ending it twice, because the
        answer was lost, raises StaleLease.
        """
        pause = ANSWER_PAUSE.total_seconds()
        return await until_answered(
            end,
            lambda error: isinstance(error, AWAY),
            first_pause=pause,
            longest_pause=pause,
        )


def failure_of(error: Exception) -> Failure:
    """What the owner of an audio is told of an error that stopped its preparation."""
    if isinstance(error, AudioError):
        return Failure(error.reason, error.message)
    if isinstance(error, ObjectNotFound):
        return Failure(error.reason, "The object store has lost the bytes of the recording.")
    if isinstance(error, AWAY):
        return Failure(Unavailable.reason, "A server that the preparation needs does not answer.")
    return Failure(
        "PREPARATION_FAILED", "The preparation failed; the log of `prepare` has the cause."
    )


async def _read(message: PrepareMessage) -> None:
    """A message has done its work when a worker is awake."""
