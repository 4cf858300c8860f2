"""The upload service in memory: recordings that grow slice by slice, and what is said in them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from simulation.bus import Bus
from simulation.links import Link
from simulation.loop import Loop
from steno.job.domain import Audio, AudioNotFound, AudioState, Slice
from steno.platform.errors import Unavailable
from steno.v1 import upload_pb2
from steno.v1.events_pb2 import AudioEvent

SLICE_SAMPLES = 480_000


@dataclass(slots=True)
class Recording:
    """An audio.

    Attributes:
        audio_id: its id.
        length: slices that it will have.
        hopeless: slices that no worker can transcribe.
        moody: slices that fail some times before they succeed, and how often.
        stubborn: slices that fail each time.
        cut: slices that there are.
        state: as the upload service says.
        deleted: it is gone.
    """

    audio_id: UUID
    length: int
    hopeless: frozenset[int] = frozenset()
    moody: dict[int, int] = field(default_factory=dict)
    stubborn: frozenset[int] = frozenset()
    cut: int = 0
    state: AudioState = AudioState.PREPARING
    deleted: bool = False

    def text(self, index: int) -> str:
        """What is said in a slice."""
        return f"{self.audio_id.hex[:8]}.{index}"

    def transcript(self, *, allow_gaps: bool) -> list[str]:
        """All that is said, one segment a slice, but for those that are left out."""
        left_out = self.stubborn if allow_gaps else frozenset()
        return [self.text(index) for index in range(self.length) if index not in left_out]

    def fails(self, *, allow_gaps: bool) -> bool:
        """Whether no whole transcript can come of it."""
        nothing_left = self.stubborn and len(self.stubborn) == self.length
        return bool(self.hopeless or (self.stubborn and not allow_gaps) or nothing_left)

    def slice(self, index: int) -> Slice:
        return Slice(
            index=index,
            start_sample=index * SLICE_SAMPLES,
            sample_count=SLICE_SAMPLES,
            speech_sample_count=SLICE_SAMPLES,
            object_key=f"{self.audio_id}/{index}",
        )


class Upload:
    """The service."""

    def __init__(self, loop: Loop, link: Link, bus: Bus) -> None:
        self._loop = loop
        self._link = link
        self._bus = bus
        self.recordings: dict[UUID, Recording] = {}

    async def prepare(self, recording: Recording, pause: float, *, rejected: bool) -> None:
        """Cuts one slice after the other, and says so; in the end it is READY, or REJECTED."""
        for _ in range(recording.length):
            await asyncio.sleep(pause * self._loop.random.random())
            recording.cut += 1
            self.tell(recording)
        recording.state = AudioState.REJECTED if rejected else AudioState.READY
        self.tell(recording)

    def delete(self, recording: Recording) -> None:
        recording.deleted = True
        self.tell(recording)

    def tell(self, recording: Recording) -> None:
        if self._bus.away or self._bus.link.loses():
            return
        event = AudioEvent(
            audio_id=str(recording.audio_id),
            state=upload_pb2.AudioState.Value(f"AUDIO_STATE_{recording.state}"),
            slice_count=recording.cut,
            deleted=recording.deleted,
        )
        self._bus.take_in(f"steno.events.audio.{recording.audio_id}", event, "")

    async def fetch(self, audio_id: UUID, start_index: int = 0) -> Audio:
        """See `steno.job.audio.AudioSource`."""
        await asyncio.sleep(self._link.delay())
        if self._link.loses():
            raise Unavailable("the upload service does not answer; try again")
        recording = self.recordings.get(audio_id)
        if recording is None or recording.deleted:
            raise AudioNotFound(audio_id)
        found = Audio(
            audio_id=audio_id,
            filename="talk.mp3",
            state=recording.state,
            truncated=False,
            slices=tuple(recording.slice(index) for index in range(start_index, recording.cut)),
            rejection_reason="UNSUPPORTED_FORMAT",
            rejection_message="it is a picture",
        )
        await asyncio.sleep(self._link.delay())
        return found
