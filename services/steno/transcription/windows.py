"""Windows that stand alone: how speech is cut into them, and how their words become segments.

Whisper was trained on windows of 30 s, and what is shorter is padded with silence to that length,
and costs as if it were full. It understands shorter ones as well, with a little silence behind
them. Which are best is a property of the model, and is measured (docs/decisions/windows.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from steno.models import Windows
from steno.transcript import SAMPLE_RATE, Span, Word

LONGEST_PAUSE = 3 * SAMPLE_RATE
"""Samples of silence that a window may hold: after a longer one the model takes it for the end."""

SEGMENT_PAUSE = 0.5
"""Seconds without a word after which another segment begins."""

SENTENCE_PAUSE = 0.08
"""Seconds without a word that make a full stop the end of a sentence, and not that of `Mr.`"""

FULL_SECONDS = 30
_STEP_SECONDS = 2
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")

_ECHO_WORDS = 4
_NO_TIME = 0.021
"""Words are told to 20 ms."""


def window_seconds(windows: Windows, samples: int) -> int:
    """Length of the window that holds so many samples, its silence included.

    Lengths are few, so that many windows can share a batch.
    """
    wanted = max(samples / SAMPLE_RATE + windows.margin_seconds, windows.least_seconds)
    return min(FULL_SECONDS, math.ceil(wanted / _STEP_SECONDS) * _STEP_SECONDS)


def cut(spoken: Sequence[Span], most: int) -> list[Span]:
    """Joins stretches of speech to windows, which end at long pauses rather than at short ones.

    Args:
        spoken: in order; none longer than `most`.
        most: longest window, in samples.
    """
    windows: list[Span] = []
    joined: list[Span] = []
    for span in spoken:
        if joined and span.start - joined[-1].end > LONGEST_PAUSE:
            windows.append(Span(joined[0].start, joined[-1].end))
            joined = []
        while joined and span.end - joined[0].start > most:
            last = _longest_pause([*joined, span], most)
            windows.append(Span(joined[0].start, joined[last].end))
            joined = joined[last + 1 :]
        joined.append(span)
    if joined:
        windows.append(Span(joined[0].start, joined[-1].end))
    return windows


def _longest_pause(spoken: Sequence[Span], most: int) -> int:
    """After which stretch it is, of those after which a window is half full; else after all."""
    enough = [n for n, span in enumerate(spoken[:-1]) if span.end - spoken[0].start >= most / 2]
    return max(enough or [len(spoken) - 2], key=lambda n: spoken[n + 1].start - spoken[n].end)


def without_echoes(words: Sequence[Word]) -> list[Word]:
    """Leaves out what the model wrote twice, and heard once.

    The second time has no place in the audio: there its words are put one upon the other, and take
    no time at all.
    """
    kept: list[Word] = []
    for takes_time, run in groupby(words, lambda word: word.end - word.start >= _NO_TIME):
        found = list(run)
        if takes_time or len(found) < _ECHO_WORDS:
            kept += found
    return kept


def longest(word: str) -> float:
    """Seconds that a word takes at most, also if it is spoken slowly; of a number, each digit."""
    digits = sum(letter.isdigit() for letter in word)
    return 0.4 + 0.1 * (len(word.strip()) - digits) + 0.4 * digits


def sentences(words: Sequence[Word]) -> Iterator[tuple[Word, ...]]:
    """Groups words to segments: they end with a sentence, or before a pause."""
    segment: list[Word] = []
    for word in words:
        if segment:
            ends = segment[-1].word.rstrip().endswith(_SENTENCE_ENDS)
            pause = word.start - segment[-1].end
            if pause >= (SENTENCE_PAUSE if ends else SEGMENT_PAUSE):
                yield tuple(segment)
                segment = []
        segment.append(word)
    if segment:
        yield tuple(segment)
