"""Slices: joined they are the recording, each is cut in silence, and no feeding changes them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from steno.audio import WINDOW_SAMPLES, Slice, Slicer, SliceSettings

SECOND = 16_000


class Loudness:
    """A detector for tests: what is loud is speech."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)

    def push(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        samples = np.concatenate([self._rest, pcm])
        whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._rest = samples[whole:]
        windows = np.abs(samples[:whole].astype(np.float32)).reshape(-1, WINDOW_SAMPLES)
        level = windows.mean(axis=1) / 2000
        loudness: NDArray[np.float32] = np.clip(level, 0, 1).astype(np.float32)
        return loudness

    def finish(self) -> NDArray[np.float32]:
        return self.push(np.zeros(-len(self._rest) % WINDOW_SAMPLES, np.int16))


def sound(*parts: tuple[float, int]) -> NDArray[np.int16]:
    """Noise in parts of (seconds, loudness)."""
    dice = np.random.default_rng(5)
    return np.concatenate(
        [
            dice.integers(-loudness - 1, loudness + 1, int(seconds * SECOND), np.int16)
            for seconds, loudness in parts
        ]
    )


def cut(blocks: Iterable[NDArray[np.int16]], settings: SliceSettings | None = None) -> list[Slice]:
    slicer = Slicer(Loudness(), settings)
    slices = [piece for block in blocks for piece in slicer.push(block)]
    return [*slices, *slicer.finish()]


def seconds(slices: list[Slice]) -> list[float]:
    return [round(len(piece.pcm) / SECOND, 1) for piece in slices]


def conversation(seed: int, length_seconds: float) -> NDArray[np.int16]:
    dice = np.random.default_rng(seed)
    parts: list[tuple[float, int]] = []
    while sum(part[0] for part in parts) < length_seconds:
        parts += [(dice.uniform(0.5, 15), 8000), (dice.exponential(0.4), 50)]
    return sound(*parts)[: int(length_seconds * SECOND)]


@pytest.mark.parametrize("seed", range(12))
def test_slices_joined_are_the_recording_to_the_sample(seed: int) -> None:
    pcm = conversation(seed, 100 + 47.123 * seed)
    settings = SliceSettings()

    slices = cut([pcm], settings)

    assert np.array_equal(np.concatenate([piece.pcm for piece in slices]), pcm)
    assert [piece.index for piece in slices] == list(range(len(slices)))
    assert [piece.start_sample for piece in slices[1:]] == [p.end_sample for p in slices[:-1]]
    assert all(len(piece.pcm) <= settings.max_samples for piece in slices)
    assert all(len(piece.pcm) >= settings.min_samples for piece in slices[:-1])
    assert len(slices[-1].pcm) >= settings.tail_samples


@pytest.mark.parametrize("block_seconds", [0.3, 1000])
def test_slices_have_three_seconds_of_each_other_where_nobody_pauses(block_seconds: float) -> None:
    pcm = sound((240, 8000), (2, 50), (60, 8000))
    step = int(block_seconds * SECOND)

    slices = cut(pcm[at : at + step] for at in range(0, len(pcm), step))

    contexts = [(len(p.left_context), len(p.right_context)) for p in slices]
    assert contexts == [(0, 3 * SECOND), (3 * SECOND, 3 * SECOND), (3 * SECOND, 0), (0, 0)]
    for piece in slices:
        heard = np.concatenate([piece.left_context, piece.pcm, piece.right_context])
        first = piece.start_sample - len(piece.left_context)
        assert np.array_equal(heard, pcm[first : first + len(heard)])


@pytest.mark.parametrize("seed", range(12))
def test_the_size_of_the_blocks_changes_no_cut(seed: int) -> None:
    dice = np.random.default_rng(seed)
    pcm = conversation(seed, dice.uniform(60, 400))
    borders = np.sort(dice.integers(0, len(pcm), 10 ** (seed % 4)))

    whole, parts = cut([pcm]), cut(np.split(pcm, borders))

    assert [(p.start_sample, p.speech_samples) for p in whole] == [
        (p.start_sample, p.speech_samples) for p in parts
    ]
    assert all(np.array_equal(a.pcm, b.pcm) for a, b in zip(whole, parts, strict=True))


def test_a_recording_shorter_than_the_minimum_is_one_slice() -> None:
    pcm = conversation(1, 29.9)

    assert seconds(cut([pcm])) == [29.9]


def test_no_recording_has_no_slice() -> None:
    assert cut([]) == []


def test_a_long_pause_after_the_minimum_is_cut_in_its_middle() -> None:
    pcm = sound((50, 8000), (1.6, 20), (40, 8000))

    first = cut([pcm])[0]

    assert first.end_sample == pytest.approx(50.8 * SECOND, abs=WINDOW_SAMPLES)


def test_a_pause_before_the_minimum_is_passed_over() -> None:
    pcm = sound((30, 8000), (3, 20), (25, 8000), (1.5, 20), (30, 8000))

    assert cut([pcm])[0].end_sample == pytest.approx(58.75 * SECOND, abs=WINDOW_SAMPLES)


def test_of_short_pauses_the_longest_is_taken() -> None:
    pcm = sound((48, 8000), (0.2, 20), (10, 8000), (0.3, 20), (10, 8000), (0.15, 20), (60, 8000))

    assert cut([pcm])[0].end_sample == pytest.approx(58.35 * SECOND, abs=WINDOW_SAMPLES)


def test_without_a_pause_the_cut_is_at_the_quietest_place_of_the_last_part() -> None:
    pcm = sound((50, 8000), (0.2, 5000), (33, 8000), (0.2, 6000), (60, 8000))

    first = cut([pcm])[0]

    assert first.end_sample == pytest.approx(83.3 * SECOND, abs=0.1 * SECOND)


def test_no_crumb_is_left_at_the_end() -> None:
    pcm = sound((88, 8000), (1.0, 20), (2, 8000))

    assert min(seconds(cut([pcm]))) >= 5


def test_a_rest_that_fits_stays_with_its_slice() -> None:
    assert seconds(cut([sound((80, 8000), (1.0, 20), (4, 8000))])) == [85.0]


def test_hours_of_silence_are_cut_too() -> None:
    slices = cut([np.zeros(300 * SECOND, np.int16)])

    assert all(30 <= length <= 90 for length in seconds(slices[:-1]))
    assert sum(piece.silence_samples for piece in slices) == 300 * SECOND


def test_a_slice_comes_as_soon_as_its_tail_is_heard() -> None:
    slicer = Slicer(Loudness())
    for block in np.split(sound((50, 8000), (1.6, 20), (4, 8000)), 10):
        assert list(slicer.push(block)) == []

    assert len(list(slicer.push(sound((2, 8000))))) == 1


def test_speech_and_silence_add_up_to_the_recording() -> None:
    pcm = conversation(4, 333.3)

    slices = cut([pcm])

    loud = sum(piece.speech_samples for piece in slices)
    assert loud + sum(piece.silence_samples for piece in slices) == len(pcm)
    heard = np.abs(pcm[: len(pcm) // 512 * 512].reshape(-1, 512).astype(int)).mean(axis=1) > 1000
    assert loud == pytest.approx(heard.sum() * 512, abs=10 * SECOND)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_samples": 0},
        {"tail_samples": -1},
        {"max_samples": 46 * SECOND},
        {"tail_samples": 50 * SECOND},
        {"context_samples": 5 * SECOND},
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="samples"):
        SliceSettings(**settings)
