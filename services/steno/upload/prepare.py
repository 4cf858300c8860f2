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
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import numpy as np
from prometheus_client import Counter

from steno.audio import (
    Decoding,
    Limits,
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
from steno.platform.loops import once
from steno.platform.messaging import PREPARE
from steno.platform.objects import ObjectStore
from steno.platform.server import GrpcServer
from steno.transcript import SAMPLE_RATE
from steno.upload.domain import AudioState, Lease, Slice, Source, StaleLease
from steno.upload.events import PREPARE_SUBJECT, Announcer
from steno.upload.keys import attempt_of, context_key, slice_key, slice_prefix
from steno.upload.settings import PrepareSettings
from steno.upload.store import PreparationStore
from steno.upload.turns import LongPlace, Turns
from steno.upload.worker import Worker
from steno.v1.events_pb2 import PrepareMessage

log = logging.getLogger(__name__)

SECONDS = Counter("steno_prepared_audio_seconds", "Length of the slices that were stored.")

SCHEMA_SECONDS = 1.0
PROGRESS_SECONDS = 600.0
"""Longest time without a second of audio; then an attempt is given up, not renewed for ever. Every
step on the way has a shorter patience of its own: this one is for what nobody foresaw."""


class Preparation:
    """Makes one attempt after the other; several at once take turns."""

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
        self._limits = Limits(max_duration_seconds=settings.prepare_max_hours * 3600)
        self._turns = Turns()

    async def prepare(self, lease: Lease, long: LongPlace) -> None:
        """Makes one attempt, from which the audio comes out READY.

        Args:
            lease: of the audio.
            long: takes a place when the recording turns out to be long.

        Raises:
            StaleLease: the audio has passed to another process, or is deleted.
            TurnOver: the recording is long, and there is no place for it.
            AudioRejected: the bytes can't be decoded.
            DecoderFailed: the decoder says nothing of the bytes.
            Unavailable, ObjectNotFound, TimeoutError: the attempt can't go on now.
        """
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
        place = (lease.audio_id, lease.attempt, index)
        has_context = len(piece.left_context) or len(piece.right_context)
        cut = Slice(
            index=index,
            start_sample=piece.start_sample,
            sample_count=len(piece.pcm),
            speech_sample_count=piece.speech_samples,
            left_context_sample_count=len(piece.left_context),
            right_context_sample_count=len(piece.right_context),
            object_key=slice_key(*place),
            context_object_key=context_key(*place) if has_context else "",
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
        SECONDS.inc(cut.sample_count / SAMPLE_RATE)
        await self._announcer.changed(lease.audio_id, AudioState.PREPARING, index + 1)

    async def _tidy(self, lease: Lease) -> None:
        """Removes slices that earlier attempts stored but died before they recorded.

        Before the audio is READY: nobody looks for them afterwards. What a later attempt stores is
        left alone: the lease may be over, unbeknown to this one.
        """
        if lease.attempt == 1:
            return
        recorded = await self._store.slice_keys(lease.audio_id)
        for key in await self._objects.list_prefix(slice_prefix(lease.audio_id)):
            attempt = attempt_of(key)
            if attempt < lease.attempt and key not in recorded:
                await self._objects.remove(key)


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
        store, announcer = PreparationStore(pool), Announcer(nats)
        preparation = Preparation(store, s3, announcer, VadModel(), settings)
        worker = Worker(store, announcer, preparation.prepare, settings)

        async def work() -> None:
            await once("schema", partial(database.check_schema, pool, "upload"), SCHEMA_SECONDS)
            await worker.run(nats.work_queue(PREPARE, "prepare", PREPARE_SUBJECT, PrepareMessage))

        # It serves nothing but its health.
        health = GrpcServer(settings, [], {}, [*database.checks(pool, "upload"), s3.check])
        async with asyncio.TaskGroup() as tasks, health:
            working = [tasks.create_task(work()) for _ in range(settings.prepare_at_once)]
            working.append(tasks.create_task(tell_walls()))
            await stopping.wait()
            await ended(*working)


if __name__ == "__main__":
    process.return_large_blocks()
    process.run("prepare", PrepareSettings, main)
