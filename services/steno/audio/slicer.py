"""Cuts a recording into slices, in silence where there is any, while it is being decoded.

A cut lies between two windows of 512 samples, never before `min_samples` and never after
`max_samples` of the slice. The longer a slice already is, the shorter the silence that is good
enough: from `long_pause_samples` at the minimum down to `short_pause_samples` at the maximum, the
cut goes into the middle of the longest silence seen. Where nobody pauses, it goes to the quietest
place of the last `search_samples` before the maximum. That may lie within a word, so the slices on
both sides of it come with context: some of what lies beyond. Both are transcribed beyond the cut,
and `steno.transcript.stitch` finds which word belongs to whom.

A cut waits until `tail_samples` of recording lie behind it, so that no crumb is left at the end.
All decisions fall window by window, so that they don't depend on the blocks that are fed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steno.audio.pcm import SAMPLE_RATE_HERTZ
from steno.audio.vad import SILENCE_THRESHOLD, SPEECH_THRESHOLD, WINDOW_SAMPLES


def _nothing() -> NDArray[np.int16]:
    """No samples."""
    return np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class SliceSettings:
    """Where a recording may be cut, in samples at 16 kHz."""

    min_samples: int = 45 * SAMPLE_RATE_HERTZ
    """Shortest slice but the last. Where people pause, slices are hardly longer, so this decides
    how full Whisper's windows of 30 s are: 50 s make two full ones, 33 s two half empty ones, for
    the same price."""
    max_samples: int = 90 * SAMPLE_RATE_HERTZ
    """Longest slice."""
    tail_samples: int = 5 * SAMPLE_RATE_HERTZ
    """Shortest last slice of a recording that has several."""
    search_samples: int = 10 * SAMPLE_RATE_HERTZ
    """Where the quietest place is looked for, before the maximum, when there is no pause."""
    long_pause_samples: int = SAMPLE_RATE_HERTZ
    """Silence that is good enough as soon as the minimum is reached."""
    short_pause_samples: int = SAMPLE_RATE_HERTZ // 10
    """Silence that is good enough shortly before the maximum."""
    context_samples: int = 3 * SAMPLE_RATE_HERTZ
    """What slices have of each other where nobody pauses; some words, so that they can be told."""
    speech_threshold: float = SPEECH_THRESHOLD
    """Probability from which on a window is speech."""
    silence_threshold: float = SILENCE_THRESHOLD
    """Probability under which a window is silence; between the two, it is what the last one was."""

    def __post_init__(self) -> None:
        if not self.min_samples >= WINDOW_SAMPLES:
            raise ValueError("min_samples must be one window or more")
        if not 0 <= self.tail_samples <= self.min_samples:
            raise ValueError("tail_samples must lie between 0 and min_samples")
        if not 0 <= self.context_samples <= max(0, self.tail_samples - WINDOW_SAMPLES):
            raise ValueError("context_samples must be shorter than tail_samples, by a window")
        if self.max_samples < self.min_samples + self.tail_samples + 2 * WINDOW_SAMPLES:
            raise ValueError("max_samples must leave room for the shortest slice and a tail")


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A piece of a recording."""

    index: int
    """0 for the first."""
    start_sample: int
    """Where it begins on the recording's clock."""
    pcm: NDArray[np.int16]
    """Its samples, of shape (samples,)."""
    speech_samples: int
    """How many of them are speech, counted in windows of 512; the others are silence."""
    left_context: NDArray[np.int16] = field(default_factory=_nothing)
    """Samples before it, if it begins where nobody pauses."""
    right_context: NDArray[np.int16] = field(default_factory=_nothing)
    """Samples after it, if it ends where nobody pauses."""

    @property
    def end_sample(self) -> int:
        """Where the next slice begins."""
        return self.start_sample + len(self.pcm)

    @property
    def silence_samples(self) -> int:
        """How many of its samples are not speech."""
        return len(self.pcm) - self.speech_samples


class Detector(Protocol):
    """Gives a speech probability for each window of 512 samples, in order, maybe later."""

    def push(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        """Takes samples of shape (n,); returns the probabilities known by now."""

    def finish(self) -> NDArray[np.float32]:
        """Returns the rest, the last window included if it is not whole."""


class Slicer:
    """Cuts one recording; holds no more of it than a longest slice, its context and a tail."""

    def __init__(self, detector: Detector, settings: SliceSettings | None = None) -> None:
        self._detector = detector
        self._settings = settings or SliceSettings()
        self._cutter = _Cutter(self._settings)
        self._pcm: deque[NDArray[np.int16]] = deque()
        self._pcm_samples = 0
        self._unmeasured = _nothing()
        self._energies: deque[int] = deque()
        self._next_index = 0
        self._next_start = 0
        self._left_context = _nothing()

    def push(self, pcm: NDArray[np.int16]) -> Iterator[Slice]:
        """Takes int16 samples of shape (n,), and yields the slices that can be cut by now.

        Exhaust the iterator before the next call.
        """
        self._pcm.append(pcm)
        self._pcm_samples += len(pcm)
        self._measure(pcm)
        yield from self._decide(self._detector.push(pcm))

    def finish(self) -> Iterator[Slice]:
        """Yields what is left when the recording has ended."""
        self._measure(np.zeros(-len(self._unmeasured) % WINDOW_SAMPLES, np.int16))
        yield from self._decide(self._detector.finish())
        for cut in self._cutter.finish(self._pcm_samples):
            yield self._cut(cut)

    def _measure(self, pcm: NDArray[np.int16]) -> None:
        """Keeps the energy of each window: an integer, so that it is the same everywhere."""
        samples = np.concatenate([self._unmeasured, pcm])
        whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
        windows = samples[:whole].reshape(-1, WINDOW_SAMPLES).astype(np.int64)
        self._energies.extend((windows * windows).sum(axis=1).tolist())
        self._unmeasured = samples[whole:]

    def _decide(self, probabilities: NDArray[np.float32]) -> Iterator[Slice]:
        for probability in probabilities.tolist():
            for cut in self._cutter.push(probability, self._energies.popleft()):
                yield self._cut(cut)

    def _cut(self, cut: _Cut) -> Slice:
        # The last window of a recording is not whole.
        samples = min(cut.windows * WINDOW_SAMPLES, self._pcm_samples)
        parts = []
        missing = samples
        while missing:
            part = self._pcm.popleft()
            if len(part) > missing:
                self._pcm.appendleft(part[missing:])
                part = part[:missing]
            parts.append(part)
            missing -= len(part)
        self._pcm_samples -= samples
        pcm = np.concatenate(parts)
        context = 0 if cut.in_pause else self._settings.context_samples
        piece = Slice(
            index=self._next_index,
            start_sample=self._next_start,
            pcm=pcm,
            speech_samples=min(cut.speech_windows * WINDOW_SAMPLES, samples),
            left_context=self._left_context,
            right_context=self._ahead(context),
        )
        self._left_context = pcm[len(pcm) - context :].copy()
        self._next_index += 1
        self._next_start += samples
        return piece

    def _ahead(self, samples: int) -> NDArray[np.int16]:
        """The next samples; a tail is always there. They stay."""
        parts = []
        for part in self._pcm:
            if samples <= 0:
                break
            parts.append(part[:samples])
            samples -= len(part)
        return np.concatenate(parts) if parts else _nothing()


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a slice ends."""

    windows: int
    speech_windows: int
    in_pause: bool


@dataclass(slots=True)
class _Pause:
    """A run of silent windows, counted from the start of the slice."""

    begin: int
    end: int
    energy: int = 0

    def middle(self, at_least: int) -> int:
        return max(at_least, (self.begin + self.end) // 2)

    def is_better_than(self, other: _Pause | None, at_least: int) -> bool:
        """Longer, or as long and quieter; only what lies past `at_least` counts."""
        length = self.end - max(self.begin, at_least)
        if other is None:
            return length > 0
        other_length = other.end - max(other.begin, at_least)
        return (length, -self.energy) > (other_length, -other.energy)


class _Cutter:
    """Decides, in windows, where a slice ends; knows nothing of samples."""

    def __init__(self, settings: SliceSettings) -> None:
        self._settings = settings
        self._min = -(-settings.min_samples // WINDOW_SAMPLES)
        self._max = settings.max_samples // WINDOW_SAMPLES
        self._tail = -(-settings.tail_samples // WINDOW_SAMPLES)
        self._search = max(1, settings.search_samples // WINDOW_SAMPLES)
        self._long = max(1, settings.long_pause_samples // WINDOW_SAMPLES)
        self._short = max(1, settings.short_pause_samples // WINDOW_SAMPLES)
        self._speaking = False
        self._speech: list[bool] = []
        self._energy: list[int] = []
        self._seen = 0
        self._pause: _Pause | None = None
        self._best: _Pause | None = None

    def push(self, probability: float, energy: int) -> Iterator[_Cut]:
        if probability >= self._settings.speech_threshold:
            self._speaking = True
        elif probability < self._settings.silence_threshold:
            self._speaking = False
        self._speech.append(self._speaking)
        self._energy.append(energy)
        while self._seen < len(self._speech) - self._tail:
            window = self._seen
            self._seen += 1  # a cut begins anew
            if cut := self._look(window):
                yield cut

    def finish(self, remaining_samples: int) -> Iterator[_Cut]:
        """Cuts what is left: in one piece if it is not too long, else in two."""
        if remaining_samples > self._settings.max_samples:
            yield self._best_until(min(self._max, len(self._speech) - self._tail))
        if self._speech:
            yield self._cut(len(self._speech))

    def _look(self, window: int) -> _Cut | None:
        """Takes in one window of the slice; cuts it if it is time."""
        end = window + 1
        ended: _Pause | None = None
        if self._speech[window]:
            ended, self._pause = self._pause, None
        else:
            if self._pause is None:
                self._pause = _Pause(window, window)
            self._pause.end = end
            self._pause.energy += self._energy[window]
            if self._pause.end - max(self._pause.begin, self._min) >= 2 * self._long:
                ended = self._pause  # so long that its end need not be awaited
        if ended and ended.is_better_than(self._best, self._min):
            self._best = ended
        if end < self._min:
            return None
        if end >= self._max:
            return self._best_until(self._max)
        if self._best and self._best.end - max(self._best.begin, self._min) >= self._patience(end):
            return self._cut(self._best.middle(self._min))
        return None

    def _patience(self, window: int) -> int:
        """Windows of silence that are good enough once a slice is `window` windows long."""
        left = self._max - window
        return self._short + (self._long - self._short) * left // (self._max - self._min)

    def _best_until(self, last: int) -> _Cut:
        """Makes the best cut in [min, last] when one must be made."""
        best: _Pause | None = None
        pause: _Pause | None = None
        for window in range(self._min, last):
            if self._speech[window]:
                pause = None
                continue
            if pause is None:
                pause = _Pause(window, window)
            pause.end = window + 1
            pause.energy += self._energy[window]
            if pause.is_better_than(best, self._min):
                best = _Pause(pause.begin, pause.end, pause.energy)
        if best and best.end - best.begin >= self._short:
            return self._cut(best.middle(self._min))
        # Nobody pauses: the quietest border between two windows, the latest of equals.
        first = max(self._min, last - self._search)
        quietest = min(
            range(last, first - 1, -1),
            key=lambda border: sum(self._energy[border - 1 : border + 1]),
        )
        return self._cut(quietest, in_pause=False)

    def _cut(self, windows: int, *, in_pause: bool = True) -> _Cut:
        """Takes the first windows away and begins anew behind them."""
        speech_windows = sum(self._speech[:windows])
        del self._speech[:windows]
        del self._energy[:windows]
        self._pause = self._best = None
        # What was already looked at behind the cut is looked at again, as the next slice's.
        self._seen = 0
        return _Cut(windows, speech_windows, in_pause)
