"""Where utterances begin and end, and which of their words are stable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steno.audio import SAMPLE_RATE_HERTZ, WINDOW_SAMPLES, SpeechDetector
from steno.concatenation.samples import Samples
from steno.transcript import Word

LONGEST_SECONDS = 28.0
"""An utterance that is longer is cut where it is quietest. With its margins it fits a window."""

MARGIN_SECONDS = 0.3
"""Part of an utterance before and after its speech, so that no first sound is lost."""

_SPEECH, _SILENCE = 0.5, 0.35


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its margins, in samples at 16 kHz since the first that was read."""

    start_sample: int
    samples: Samples
    ended: bool

    @property
    def end_sample(self) -> int:
        """Where it ends."""
        return self.start_sample + len(self.samples)


class Endpointer:
    """Tells where utterances begin and end. Holds no more than the longest of them."""

    def __init__(self, detector: SpeechDetector, silence_seconds: float) -> None:
        self._detector = detector
        self._silence = _windows(silence_seconds)
        self._margin = _windows(MARGIN_SECONDS)
        self._longest = _windows(LONGEST_SECONDS)
        self._waiting = np.zeros(0, np.int16)  # judged with what comes next
        self._windows: list[Samples] = []  # of the utterance, or the margin before the next
        self._probabilities: list[float] = []
        self._start = 0  # window with which they begin
        self._speaking = False
        self._quiet = 0  # windows since somebody spoke

    @property
    def speaking(self) -> bool:
        """An utterance has begun and not ended."""
        return self._speaking

    @property
    def start_sample(self) -> int:
        """What comes before this is said and done."""
        return self._start * WINDOW_SAMPLES

    def so_far(self) -> Utterance:
        """The utterance that has begun."""
        return self._cut(len(self._windows), ended=False)

    def push(self, samples: Samples) -> Iterator[Utterance]:
        """Takes more samples; yields utterances as they end."""
        self._waiting = np.concatenate([self._waiting, samples])
        yield from self._judge(self._detector.push(samples))

    def finish(self) -> Iterator[Utterance]:
        """Nothing more comes: ends what has begun."""
        rest = self._detector.finish()
        self._waiting = np.pad(self._waiting, (0, -len(self._waiting) % WINDOW_SAMPLES))
        yield from self._judge(rest)
        if self._speaking:
            yield self._cut(len(self._windows), ended=True)
            self._speaking = False

    def _judge(self, probabilities: NDArray[np.float32]) -> Iterator[Utterance]:
        for probability in probabilities.tolist():
            window, self._waiting = (
                self._waiting[:WINDOW_SAMPLES],
                self._waiting[WINDOW_SAMPLES:],
            )
            self._windows.append(window)
            self._probabilities.append(probability)
            if probability >= _SPEECH:
                self._speaking, self._quiet = True, 0
            elif probability < _SILENCE or self._quiet:
                self._quiet += 1
            if not self._speaking:
                self._drop(max(0, len(self._windows) - self._margin))
            elif self._quiet >= max(self._silence, self._margin):
                end = len(self._windows) - self._quiet + self._margin
                yield self._cut(end, ended=True)
                self._drop(end)
                self._speaking = False
            elif len(self._windows) >= self._longest:
                end = self._quietest()
                yield self._cut(end, ended=True)
                self._drop(end)

    def _quietest(self) -> int:
        """Where to cut speech that does not end: in the least probable window of the last 6 s."""
        first = len(self._windows) - _windows(6.0)
        last = self._probabilities[first:]
        return first + min(range(len(last)), key=last.__getitem__) + 1

    def _cut(self, windows: int, *, ended: bool) -> Utterance:
        samples = np.concatenate([np.zeros(0, np.int16), *self._windows[:windows]])
        return Utterance(self._start * WINDOW_SAMPLES, samples, ended)

    def _drop(self, windows: int) -> None:
        del self._windows[:windows], self._probabilities[:windows]
        self._start += windows


def _windows(seconds: float) -> int:
    return max(1, round(seconds * SAMPLE_RATE_HERTZ / WINDOW_SAMPLES))


class Agreement:
    """LocalAgreement-2: words are stable once two results in a row begin with them."""

    def __init__(self) -> None:
        self._stable: list[Word] = []
        self._last: list[Word] = []

    def add(self, words: Sequence[Word]) -> tuple[list[Word], int]:
        """Takes the words of a result; returns what to show, and how many of it are stable."""
        count = len(self._stable)
        for one, other in zip(self._last[count:], words[count:], strict=False):
            if _plain(one.word) != _plain(other.word):
                break
            self._stable.append(other)
        self._last = list(words)
        return [*self._stable, *words[len(self._stable) :]], len(self._stable)


def _plain(word: str) -> str:
    return re.sub(r"\W", "", word).lower()
