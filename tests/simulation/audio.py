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
        cut: slices that there are.
        state: as the upload service says.
        deleted: it is gone.
    """

    audio_id: UUID
    length: int
    hopeless: frozenset[int] = frozenset()
    moody: dict[int, int] = field(default_factory=dict)
    cut: int = 0
    state: AudioState = AudioState.PREPARING
    deleted: bool = False

    def text(self, index: int) -> str:
        """What is said in a slice."""
        return f"{self.audio_id.hex[:8]}.{index}"

    @property
    def transcript(self) -> list[str]:
        """All that is said, one segment a slice."""
        return [self.text(index) for index in range(self.length)]

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

    async def prepare(self, recording: Recording, pause: float) -> None:
        """Cuts one slice after the other, and says so."""
        for _ in range(recording.length):
            await asyncio.sleep(pause * self._loop.random.random())
            recording.cut += 1
            self.tell(recording)
        recording.state = AudioState.READY
        self.tell(recording)

    def reject(self, recording: Recording) -> None:
        recording.state = AudioState.REJECTED
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

    async def look(self, audio_id: UUID, start_index: int = 0) -> Audio:
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
