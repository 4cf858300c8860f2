"""Headers, samples and segments of recordings."""

from __future__ import annotations

import asyncio
import io
import random
import struct
from dataclasses import replace
from datetime import timedelta
from typing import cast
from uuid import UUID

import av
import numpy as np
import pytest

from steno.concatenation import recording
from steno.concatenation.domain import (
    Encoding,
    Part,
    PcmFormat,
    Piece,
    RecordingFormat,
    Session,
    SessionState,
    Sound,
)
from steno.concatenation.hls import encode
from steno.concatenation.recent import RecentObjects
from steno.concatenation.recording import (
    PART_BYTES,
    Recordings,
    head_frames,
    header,
    part_frames,
)
from steno.concatenation.samples import to_mono, to_numbers
from steno.concatenation.store import Store
from steno.platform.objects import ObjectNotFound

from .conftest import CONFIG, LEASE, SESSION, Ledger, Shelf

MONO = PcmFormat(Encoding.LINEAR16, 16_000, 1)


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW])
def test_g711_sounds_as_libav_decodes_it(encoding: Encoding) -> None:
    of = PcmFormat(encoding, 8000, 1)
    data = bytes(range(256)) * 10
    with av.open(io.BytesIO(header(RecordingFormat.WAV, of, len(data)) + data), "r") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]

    assert np.array_equal(to_numbers(of, data)[:, 0], np.concatenate(frames))


@pytest.mark.parametrize("encoding", [e for e in Encoding if e is not Encoding.CONTAINER])
def test_silence_is_silent_in_each_encoding(encoding: Encoding) -> None:
    of = PcmFormat(encoding, 8000, 2)

    assert abs(to_mono(of, of.silence(100))).max() < 1e-3
    assert len(of.silence(100)) == 100 * of.frame_bytes


def test_a_recording_that_is_too_long_for_a_wav_is_an_rf64_that_libav_reads() -> None:
    frames = 2**31 + 5
    made = header(RecordingFormat.WAV, MONO, frames)

    assert made[:4] == b"RF64"
    (riff_bytes, data_bytes, sample_count) = struct.unpack("<QQQ", made[20:44])
    assert (data_bytes, sample_count) == (2 * frames, frames)
    assert riff_bytes == len(made) - 8 + data_bytes
    with av.open(io.BytesIO(made + bytes(32_000))) as container:
        assert container.format.name == "wav"
        assert container.streams.audio[0].rate == 16_000


@pytest.mark.parametrize("encoding", [e for e in Encoding if e is not Encoding.CONTAINER])
def test_a_w64_tells_libav_how_long_it_is_however_long(encoding: Encoding) -> None:
    of = PcmFormat(encoding, 8000, 2)

    for frames in (800, 2**33 + 1):
        made = header(RecordingFormat.W64, of, frames)
        with av.open(io.BytesIO(made + of.silence(800)), "r") as container:
            stream = container.streams.audio[0]
            assert container.format.name == "w64"
            assert (stream.rate, stream.channels) == (8000, 2)
            assert struct.unpack("<Q", made[16:24])[0] == len(made) + frames * of.frame_bytes
            if frames == 800:
                assert sum(frame.samples for frame in container.decode(audio=0)) == frames
            elif encoding is not Encoding.LINEAR16:
                assert stream.duration == frames


@pytest.mark.parametrize("channels", range(1, 9))
def test_a_part_is_whole_frames_and_long_enough_for_s3(channels: int) -> None:
    of = PcmFormat(Encoding.LINEAR16, 48_000, channels)

    size = head_frames(of) * of.frame_bytes

    assert PART_BYTES <= size < PART_BYTES + of.frame_bytes


@pytest.mark.parametrize("encoding", [Encoding.LINEAR16, Encoding.FLOAT32])
@pytest.mark.parametrize("hours", [1, 12, 24])
def test_a_recording_of_any_allowed_length_has_no_more_parts_than_s3_takes(
    encoding: Encoding, hours: int
) -> None:
    for rate, channels in ((16_000, 1), (48_000, 2), (48_000, 8), (192_000, 8)):
        config = replace(
            CONFIG,
            encoding=encoding,
            sample_rate_hertz=rate,
            channel_count=channels,
            max_duration=timedelta(hours=hours),
        )
        session = replace(SESSION, config=config)
        longest = config.format.frames_in(config.max_duration)
        size = part_frames(session) * config.format.frame_bytes

        assert 1 + -(-longest // part_frames(session)) < 10_000
        assert PART_BYTES <= size < 64 * 2**20
        if rate < 48_000:
            assert size == PART_BYTES


async def test_a_long_recording_is_joined_in_longer_parts_behind_the_same_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(CONFIG, max_duration=timedelta(minutes=30))
    monkeypatch.setattr(recording, "MOST_PARTS", 3)
    frames = MONO.frames_in(config.max_duration)
    session = replace(SESSION, config=config, frame_count=frames)
    ledger, shelf = Ledger(session), Shelf()
    pcm = random.Random(3).randbytes(frames * MONO.frame_bytes)
    shelf.objects["sound"] = pcm
    ledger.sounds = [Sound("sound", frames)]
    recordings = Recordings(cast(Store, ledger), cast(RecentObjects, shelf))

    for _ in range(2):
        await recordings.join(LEASE, ledger.session)
    await recordings.make_file(ledger.session, "file")

    assert [part.start_frame for part in ledger.joined] == [
        head_frames(MONO),
        head_frames(MONO) + frames // 3,
    ]
    assert shelf.objects["file"] == header(RecordingFormat.WAV, MONO, frames) + pcm


@pytest.mark.parametrize("joined", [0, 1, 3])
async def test_a_file_is_made_part_by_part_however_much_of_it_is_not_joined_yet(
    joined: int,
) -> None:
    step = head_frames(MONO)
    frames = 4 * step + 1000
    ledger, shelf = Ledger(replace(SESSION, frame_count=frames)), Shelf()
    pcm = random.Random(joined).randbytes(frames * MONO.frame_bytes)
    shelf.objects["sound"] = pcm
    ledger.sounds = [Sound("sound", frames)]
    for number in range(joined):
        start = (1 + number) * step
        ledger.joined.append(Part(number, start, step, f"part-{number}"))
        shelf.objects[f"part-{number}"] = pcm[start * MONO.frame_bytes :][:PART_BYTES]

    recordings = Recordings(cast(Store, ledger), cast(RecentObjects, shelf))
    await recordings.make_file(ledger.session, "file")

    assert shelf.objects["file"] == header(RecordingFormat.WAV, MONO, frames) + pcm
    assert max(shelf.written) < 1.1 * PART_BYTES


@pytest.mark.parametrize("frames", [1000, 4 * head_frames(MONO)])
async def test_no_byte_is_read_for_a_file_outside_of_the_room_for_that(frames: int) -> None:
    class Watched(Shelf):
        async def get_range(self, key: str, offset: int, size: int) -> bytes:
            assert recordings._room.used >= 2 * size
            return await super().get_range(key, offset, size)

    ledger, shelf = Ledger(replace(SESSION, frame_count=frames)), Watched()
    shelf.objects["sound"] = bytes(frames * MONO.frame_bytes)
    ledger.sounds = [Sound("sound", frames)]
    recordings = Recordings(cast(Store, ledger), cast(RecentObjects, shelf))

    await recordings.make_file(ledger.session, "file")

    assert recordings._room.used == 0


async def test_no_file_is_made_of_a_session_that_is_deleted_meanwhile() -> None:
    ledger, shelf = Ledger(replace(SESSION, frame_count=1000)), Shelf()
    recordings = Recordings(cast(Store, ledger), cast(RecentObjects, shelf))

    with pytest.raises(ObjectNotFound):
        await recordings.make_file(ledger.session, "file")

    assert not shelf.objects


@pytest.mark.parametrize("channels", range(1, 9))
def test_a_segment_for_players_has_every_sample_of_each_channel(channels: int) -> None:
    of = PcmFormat(Encoding.LINEAR16, 16_000, channels)
    sent = np.random.default_rng(1).integers(-3000, 3000, (40_000, channels)).astype("<i2")

    init, media = encode(of, sent.tobytes(), start_frame=96_000)

    with av.open(io.BytesIO(init + media), "r") as container:
        frames = list(container.decode(audio=0))
    assert np.array_equal(
        np.concatenate([frame.to_ndarray().reshape(-1, channels) for frame in frames]), sent
    )
    assert frames[0].time == 6.0


def test_what_is_no_number_does_not_reach_a_model() -> None:
    of = PcmFormat(Encoding.FLOAT32, 16_000, 1)
    wild = np.array([np.nan, np.inf, -np.inf, 7.0, 0.5], "<f4")

    assert to_mono(of, wild.tobytes()).tolist() == [0, 1, -1, 1, 0.5]


class Growing(Ledger, Shelf):
    """A session that is recorded, and where its bytes are."""

    def __init__(self, seconds: int) -> None:
        Shelf.__init__(self)
        config = replace(CONFIG, max_duration=timedelta(hours=1))
        Ledger.__init__(self, replace(SESSION, state=SessionState.OPEN, config=config))
        self.grow(seconds)

    def grow(self, seconds: float) -> None:
        self._saved(frame_count=self.session.frame_count + round(seconds * MONO.rate_hertz))

    async def get(self, session_id: UUID) -> Session:
        return self.session

    async def pieces(self, session_id: UUID, start_frame: int, end_frame: int) -> list[Piece]:
        return [Piece(0, self.session.frame_count, None, 0)]

    async def remove_later(self, object_prefix: str, after: timedelta) -> None: ...

    async def list_prefix(self, prefix: str) -> list[str]:
        return [key for key in self.objects if key.startswith(prefix)]

    def presigned_get(self, key: str, lifetime: timedelta) -> str:
        return key


async def test_callers_who_ask_for_a_growing_file_again_and_again_share_few_copies() -> None:
    growing = Growing(seconds=20)
    recordings = Recordings(cast(Store, growing), cast(RecentObjects, growing))

    async def asked(times: int = 1) -> list[float]:
        calls = (recordings.snapshot(growing.session, timedelta(hours=6)) for _ in range(times))
        answers = await asyncio.gather(*calls)
        assert all(growing.objects[key] for key, _ in answers)
        return [MONO.seconds(frames) for _, frames in answers]

    assert await asked(5) == [20] * 5
    assert len(growing.objects) == 1
    growing.grow(1)
    assert await asked() == [21]  # a short one is as it is now
    growing.grow(9 * 60)
    await asked()
    made = len(growing.objects)
    for _ in range(40):
        growing.grow(1)
        (seconds,) = await asked()
        assert 0 <= MONO.seconds(growing.session.frame_count) - seconds < 6.1

    assert len(growing.objects) - made <= 8
