"""The preparation: decodes audio, cuts it in silence, stores the slices.

Runs by itself, as `python -m steno.upload.prepare`, in any number.

An audio is leased for one attempt at a time, and everything that an attempt writes is fenced. An
attempt that dies leaves its slices behind: jobs may be at work on them. The next one decodes again
from the start and adds what lies beyond them. Cutting is deterministic, so that the slices are
those of an undisturbed run; and where it should ever not be, they still join without gap or
overlap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
from prometheus_client import Counter

from steno.audio import (
    SAMPLE_RATE_HERTZ,
    AudioError,
    AudioRejected,
    DecoderFailed,
    Decoding,
    Limits,
    Reason,
    Slicer,
    SpeechDetector,
    VadModel,
    decode,
    encode_slice,
    require_walls,
    tell_walls,
)
from steno.audio import Slice as Piece
from steno.platform import database, messaging, objects, process
from steno.platform.ending import ended
from steno.platform.errors import Unavailable
from steno.platform.messaging import PREPARE, WorkQueue, settle
from steno.platform.objects import ObjectNotFound, ObjectStore
from steno.platform.server import GrpcServer
from steno.platform.telemetry import log_context, received_trace, tracer
from steno.upload.domain import (
    AudioState,
    Failure,
    Lease,
    Rejection,
    Slice,
    Source,
    StaleLease,
)
from steno.upload.events import PREPARE_SUBJECT, Announcer
from steno.upload.keys import slice_prefix
from steno.upload.settings import PrepareSettings
from steno.upload.store import PreparationStore
from steno.upload.turns import LONG_SAMPLES, LongPlace, LongPlaces, TurnOver, Turns
from steno.v1.events_pb2 import PrepareMessage

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = Counter("steno_prepare_attempts", "Attempts to prepare an audio, by their end.", ["end"])
SECONDS = Counter("steno_prepared_audio_seconds", "Length of the slices that were stored.")
REJECTED = Counter("steno_prepare_rejected", "Audio that can't be transcribed.", ["reason"])

AWAY = (Unavailable, *database.AWAY)
"""Something behind this process does not answer: nobody's fault, however often it happens."""

AWAY_PAUSE = timedelta(seconds=2)
ANSWER_PAUSE = timedelta(seconds=1)

PROGRESS_SECONDS = 600.0
"""Longest time without a second of audio; then an attempt is given up, not renewed for ever. Every
step on the way has a shorter patience of its own: this one is for what nobody foresaw."""


class DecoderBroken(Exception):
    """No recording can be decoded here: this process is of no use any more."""


class Preparation:
    """Prepares audio: as many at once as `next` is called at once, by turns.

    Attributes:
        broken: no decoder can be started; whatever is prepared from now on is handed back.
    """

    def __init__(
        self,
        store: PreparationStore,
        s3: ObjectStore,
        announcer: Announcer,
        vad: VadModel,
        settings: PrepareSettings,
    ) -> None:
        self._store = store
        self._objects = s3
        self._announcer = announcer
        self._vad = vad
        self._lease = timedelta(seconds=settings.prepare_lease_seconds)
        self._grace = timedelta(hours=settings.audio_grace_hours)
        self._limits = Limits(max_duration_seconds=settings.prepare_max_hours * 3600)
        self._turns = Turns()
        self._long_places = LongPlaces(settings.prepare_at_once - 1)
        self.broken = False

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
        """Takes the next audio. Who is told to end meanwhile gives it back."""
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
            async with self._renewed(lease):
                await self._prepare(lease, long)
        except StaleLease:
            raise
        except TurnOver:
            await until_answered(lambda: self._store.hand_back(lease))
            return "turn"
        except AudioRejected as error:
            return await self._reject(lease, Rejection(error.reason, error.message))
        except asyncio.CancelledError:
            with suppress(StaleLease, *AWAY):  # else the lease runs out by itself
                await undisturbed(self._store.hand_back(lease))
            raise
        except Exception as error:
            if isinstance(error, DecoderFailed) and error.reason is Reason.DECODER_UNAVAILABLE:
                self.broken = True
            elif not isinstance(error, AWAY):
                return await self._fail(lease, error)
            return await self._put_off(lease, error)
        return "ready"

    async def _prepare(self, lease: Lease, long: LongPlace) -> None:
        long.reach(lease.sample_count)

        async def read_at(offset: int, size: int) -> bytes:
            data = await self._objects.get_range(lease.object_key, offset, size)
            if len(data) < size:  # or the decoder would judge what is not the recording
                raise Unavailable("the object store gave fewer bytes than the recording has")
            return data

        index, end = lease.slice_count, lease.sample_count
        async with (
            asyncio.timeout(PROGRESS_SECONDS) as patience,
            decode(read_at, lease.size_bytes, self._limits) as decoding,
            aclosing(self._pieces(decoding, lease.tenant, patience)) as pieces,
        ):
            async for piece in pieces:
                if fresh := beyond(piece, end):
                    await self._keep(lease, index, fresh)
                    index, end = index + 1, fresh.end_sample
                    long.reach(end)
        source = Source(
            container=decoding.info.container,
            codec=decoding.info.codec,
            sample_rate_hertz=decoding.info.sample_rate_hertz,
            channel_count=decoding.info.channel_count,
            truncated=decoding.summary.truncated,
        )
        await self._tidy(lease)
        audio = await self._store.finish(lease, source)
        log.info("ready", extra={"action": "prepare", "slice_count": audio.slice_count})
        await self._announcer.changed(audio.audio_id, audio.state, audio.slice_count)

    async def _pieces(
        self, decoding: Decoding, tenant: str, patience: asyncio.Timeout
    ) -> AsyncGenerator[Piece, None]:
        """The slices of a recording, each as soon as it can be cut."""
        slicer = Slicer(SpeechDetector(self._vad))
        clock = asyncio.get_running_loop().time
        with self._turns.place(tenant) as place:
            async for block in decoding:
                patience.reschedule(clock() + PROGRESS_SECONDS)
                async with self._turns.turn(place, len(block)):
                    pieces = await asyncio.to_thread(list, slicer.push(block))
                for piece in pieces:
                    yield piece
        for piece in await asyncio.to_thread(list, slicer.finish()):
            yield piece

    async def _keep(self, lease: Lease, index: int, piece: Piece) -> None:
        """Stores a slice and tells of it. Under a lease that is over, it leaves nothing."""
        key = f"{slice_prefix(lease.audio_id)}{lease.attempt}/{index}"
        has_context = len(piece.left_context) or len(piece.right_context)
        cut = Slice(
            index=index,
            start_sample=piece.start_sample,
            sample_count=len(piece.pcm),
            speech_sample_count=piece.speech_samples,
            left_context_sample_count=len(piece.left_context),
            right_context_sample_count=len(piece.right_context),
            object_key=f"{key}.wav",
            context_object_key=f"{key}.context.wav" if has_context else "",
        )
        await self._objects.put(cut.object_key, encode_slice(piece.pcm), "audio/wav")
        if cut.context_object_key:
            heard = np.concatenate([piece.left_context, piece.pcm, piece.right_context])
            await self._objects.put(cut.context_object_key, encode_slice(heard), "audio/wav")
        try:
            await self._store.record_slice(lease, cut)
        except StaleLease:
            for written in filter(None, (cut.object_key, cut.context_object_key)):
                await self._objects.remove(written)
            raise
        SECONDS.inc(cut.sample_count / SAMPLE_RATE_HERTZ)
        await self._announcer.changed(lease.audio_id, AudioState.PREPARING, index + 1)

    async def _tidy(self, lease: Lease) -> None:
        """Removes slices that earlier attempts stored but died before they recorded.

        Before the audio is READY: nobody looks for them afterwards. What a later attempt stores is
        left alone: the lease may be over, unbeknown to this one.
        """
        if lease.attempt == 1:
            return
        recorded = await self._store.slice_keys(lease.audio_id)
        prefix = slice_prefix(lease.audio_id)
        for key in await self._objects.list_prefix(prefix):
            attempt = int(key.removeprefix(prefix).partition("/")[0])
            if attempt < lease.attempt and key not in recorded:
                await self._objects.remove(key)

    async def _put_off(self, lease: Lease, error: Exception) -> str:
        """Hands the audio back for a while: it is not its fault."""
        log.warning("will go on later: %s", error, extra={"action": "prepare"})
        await until_answered(lambda: self._store.put_off(lease, failure_of(error), AWAY_PAUSE))
        return "away"

    async def _fail(self, lease: Lease, error: Exception) -> str:
        """Parks the audio: whose fault it is, nobody knows, so its bytes stay."""
        await until_answered(lambda: self._store.fail(lease, failure_of(error)))
        log.error("the attempt failed", exc_info=error, extra={"action": "prepare"})
        return "failed"

    async def _reject(self, lease: Lease, rejection: Rejection) -> str:
        audio = await until_answered(lambda: self._store.reject(lease, rejection, self._grace))
        REJECTED.labels(rejection.reason).inc()
        log.warning("rejected: %s", rejection.reason, extra={"action": "prepare"})
        await self._announcer.changed(audio.audio_id, audio.state, audio.slice_count)
        return "rejected"

    @asynccontextmanager
    async def _renewed(self, lease: Lease) -> AsyncIterator[None]:
        """Keeps the lease alive inside. Who loses it is told by the next write."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(self._lease.total_seconds() / 3)
                try:
                    await self._store.renew(lease, self._lease)
                except StaleLease:
                    return
                except Exception as error:  # or what is being prepared would be taken away
                    log.warning("not renewed: %s", error, extra={"action": "renew"})

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()


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


async def until_answered(end: Callable[[], Awaitable[T]]) -> T:
    """Ends a lease, and tries again while Postgres is away.

    A lease that nobody ended runs out, which counts as a failure. Ending it twice,
    because the answer was lost, raises StaleLease.
    """
    while True:
        try:
            return await end()
        except AWAY as error:
            log.warning("the lease is not ended yet: %s", error, extra={"action": "prepare"})
        await asyncio.sleep(ANSWER_PAUSE.total_seconds())


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Does the last work of who is cancelled already, and may be cancelled again meanwhile."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


def beyond(piece: Piece, end_sample: int) -> Piece | None:
    """What of a slice lies at or after a sample of the recording; None if nothing does."""
    if piece.end_sample <= end_sample:
        return None
    recorded = max(0, end_sample - piece.start_sample)
    pcm = piece.pcm[recorded:]
    return Piece(
        index=piece.index,
        start_sample=piece.start_sample + recorded,
        pcm=pcm,
        speech_samples=min(piece.speech_samples, len(pcm)),
        left_context=piece.left_context if not recorded else piece.left_context[:0],
        right_context=piece.right_context,
    )


async def main(settings: PrepareSettings, stopping: asyncio.Event) -> None:
    """Prepares what comes until told to stop; then hands back what it is at, at once.

    Raises:
        DecoderBroken: in a group. No decoder can be started; a new process may fare better.
    """
    require_walls(settings.sandbox == "require")
    async with (
        database.open_pool(settings) as pool,
        messaging.connect(settings, "prepare") as nats,
        objects.open_store(settings) as s3,
    ):
        preparation = Preparation(
            PreparationStore(pool),
            s3,
            Announcer(nats),
            VadModel(),
            settings,
        )
        # It serves nothing but its health.
        health = GrpcServer(settings, [], {}, (lambda: database.check_database(pool), s3.check))
        async with asyncio.TaskGroup() as tasks, health:
            working = [
                tasks.create_task(
                    take(
                        nats.work_queue(PREPARE, "prepare", PREPARE_SUBJECT, PrepareMessage),
                        preparation,
                    )
                )
                for _ in range(settings.prepare_at_once)
            ]
            working.append(tasks.create_task(tell_walls()))
            await stopping.wait()
            await ended(*working)


async def take(queue: WorkQueue[PrepareMessage], preparation: Preparation) -> None:
    """Prepares one audio after the other, as long as a decoder can be started.

    A machine on which none can would else take one audio after the other, and prepare none. A
    message says that some audio waits; whose turn it is, Postgres knows.

    Raises:
        DecoderBroken: none can be started.
    """
    while not preparation.broken:
        try:
            if await preparation.next():
                continue
        except AWAY as error:
            log.warning("will try again: %s", error, extra={"action": "lease"})
        delivery = await queue.next()
        if delivery is not None:
            await settle(delivery, heard)
    raise DecoderBroken("no decoder can be started")


async def heard(message: PrepareMessage) -> None:
    """A message has done its work when somebody is awake."""


if __name__ == "__main__":
    process.return_large_blocks()
    process.run("prepare", PrepareSettings, main)
