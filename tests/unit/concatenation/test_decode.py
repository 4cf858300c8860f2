"""Files become sound, however much of it a small one holds."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from typing import cast

import av
import numpy as np
import pytest

from recordings import RATE, Samples, encoded
from steno.concatenation.decode import Decoder
from steno.concatenation.domain import GapCause, StoredChunk
from steno.concatenation.latest import Latest
from steno.concatenation.recent import RecentObjects
from steno.concatenation.store import Store

from .conftest import CONFIG, LEASE, SESSION, Ledger, Shelf

MINUTE_BYTES = 60 * RATE * 2


@pytest.fixture(scope="module")
def noise() -> Samples:
    return np.random.default_rng(1).integers(-300, 300, 150 * RATE).astype(np.int16)


async def recorded(
    *files: bytes, shelf: Shelf | None = None, max_duration: timedelta = CONFIG.max_duration
) -> tuple[Ledger, Shelf]:
    """What becomes of a session of files."""
    shelf = shelf or Shelf()
    chunks = []
    for sequence, file in enumerate(files):
        shelf.objects[f"file-{sequence}"] = file
        chunks.append(StoredChunk(sequence, b"", len(file), f"file-{sequence}", 0))
    config = replace(CONFIG, max_duration=max_duration)
    ledger = Ledger(replace(SESSION, config=config, next_sequence=len(files)), chunks)
    latest = Latest(ledger.session, lambda: None)
    decoder = Decoder(LEASE, cast(Store, ledger), cast(RecentObjects, shelf), latest)
    await decoder.run()
    assert ledger.session.drained
    return ledger, shelf


class Weighed(Shelf):
    """Keeps no sound, only how much of it there was."""

    async def put(self, key: str, data: bytes, content_type: str = "") -> None:
        assert not any(data)
        self.written.append(len(data))


def flac_of_silence(minutes: int) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        for number in range(minutes * 60 * 8000 // 4608):
            frame.pts = number * 4608
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


async def test_a_small_file_of_hours_is_never_in_memory_as_sound() -> None:
    file = flac_of_silence(minutes=30)
    await recorded(flac_of_silence(minutes=1))  # what is made once only

    tracemalloc.start()
    ledger, shelf = await recorded(file, shelf=Weighed())
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    sound_bytes = 2 * ledger.session.frame_count
    assert len(file) < sound_bytes / 50
    assert sum(shelf.written) == sound_bytes > 29 * MINUTE_BYTES
    assert max(shelf.written) <= 1.1 * MINUTE_BYTES
    assert most_bytes < 4 * MINUTE_BYTES


async def test_a_file_is_recorded_to_the_sample_in_runs_that_follow_one_another(
    noise: Samples,
) -> None:
    files = [encoded(part, "flac") for part in (noise, noise[: RATE // 2])]

    ledger, shelf = await recorded(*files)

    stored = [shelf.objects[sound.object_key] for sound in ledger.sounds]
    assert [len(data) // 2 for data in stored] == [s.frame_count for s in ledger.sounds]
    assert len({sound.object_key for sound in ledger.sounds}) == 4
    assert np.array_equal(
        np.frombuffer(b"".join(stored), "<i2"), np.concatenate([noise, noise[: RATE // 2]])
    )
    assert ledger.session.chunk_frame_count == RATE // 2


async def test_nothing_is_left_of_a_file_that_is_no_good_after_minutes(noise: Samples) -> None:
    ledger, shelf = await recorded(
        encoded(noise[:RATE], "flac"),
        encoded(noise, "aac"),
        encoded(noise[:RATE], "flac"),
        max_duration=timedelta(seconds=140),
    )

    assert max(shelf.written) >= MINUTE_BYTES  # of the second
    assert [(gap.first_sequence, gap.frame_count, gap.cause) for gap in ledger.gaps] == [
        (1, RATE, GapCause.UNDECODABLE)
    ]
    assert [sound.frame_count for sound in ledger.sounds] == [RATE, RATE]
    files = {f"file-{sequence}" for sequence in range(3)}
    assert shelf.objects.keys() - files == {sound.object_key for sound in ledger.sounds}
