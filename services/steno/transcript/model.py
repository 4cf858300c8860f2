"""Words, segments and transcripts. Offsets are seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from steno.transcript.options import Options

SAMPLE_RATE = 16_000
"""Samples a second of all prepared audio."""

NO_SPEECH_THRESHOLD = 0.6
"""Probability of silence above which a text is dropped if its avg_logprob is also at most
LOGPROB_THRESHOLD."""

LOGPROB_THRESHOLD = -1.0
"""Mean log probability of its tokens up to which a text is taken for unlikely."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its punctuation, and the space before it where the language has one."""

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech that the model gave as one.

    `text` is as the model gave it: in languages with spaces between words it starts with one, so
    that texts are joined without thinking about it.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    temperature: float = 0.0
    language: str = ""
    index: int = 0

    def retimed(self, clock: Callable[[float], float]) -> Segment:
        """The same, each offset as another clock has it."""
        words = (replace(w, start=clock(w.start), end=clock(w.end)) for w in self.words)
        return replace(self, start=clock(self.start), end=clock(self.end), words=tuple(words))

    @property
    def is_dropped(self) -> bool:
        """Whisper's own rule for text in silence (`transcribe.py`, openai/whisper)."""
        return self.no_speech_prob > NO_SPEECH_THRESHOLD and self.avg_logprob <= LOGPROB_THRESHOLD


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of audio, in samples."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Samples."""
        return self.end - self.start


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Puts spans in order, and makes one of those that meet."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda each: each.start):
        if merged and span.start <= merged[-1].end:
            span = Span(merged[-1].start, max(merged.pop().end, span.end))
        merged.append(span)
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where every sample went: speech + silence + gaps = all.

    Attributes:
        speech: samples of speech that gave text.
        silence: samples without speech.
        gaps: stretches of speech that gave no text.
    """

    speech: int
    silence: int
    gaps: tuple[Span, ...]

    def without(self, missing: Iterable[Span]) -> Coverage:
        """The same, where some of the audio never came: what seemed silence there is a gap."""
        gaps = merge([*self.gaps, *missing])
        more = sum(gap.length for gap in gaps) - sum(gap.length for gap in self.gaps)
        heard_there = max(0, more - self.silence)  # speech is told a little too long
        return Coverage(self.speech - heard_there, self.silence + heard_there - more, gaps)

    def moved(self, samples: int) -> Coverage:
        """The same, later."""
        gaps = tuple(Span(gap.start + samples, gap.end + samples) for gap in self.gaps)
        return replace(self, gaps=gaps)


@dataclass(frozen=True, slots=True)
class SliceTranscript:
    """What was found in one slice.

    `start_sample` and `sample_count` place the slice on the recording's clock, at 16 kHz; the
    segments' offsets, and the coverage's, count from the start of the slice. Where a slice was cut
    out of speech, `left_context` and `right_context` tell how many samples beyond it were
    transcribed too: what was found there has offsets under 0 or behind the slice's end.
    """

    start_sample: int
    sample_count: int
    segments: tuple[Segment, ...]
    coverage: Coverage | None = None
    dropped: tuple[Segment, ...] = ()
    left_context: int = 0
    right_context: int = 0

    @property
    def end_sample(self) -> int:
        """Where the next slice begins."""
        return self.start_sample + self.sample_count


@dataclass(frozen=True, slots=True)
class Model:
    """The model that made a transcript."""

    name: str
    revision: str
    compute_type: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of a recording, with what is needed to make it again.

    `options` are those that were really used, or None where nobody knows; `truncated` says that the
    file ended in the middle, so that only its readable part is here. `dropped` is None unless it
    was asked for.
    """

    segments: tuple[Segment, ...]
    language: str
    duration: float
    model: Model
    options: Options | None = None
    truncated: bool = False
    dropped: tuple[Segment, ...] | None = None

    @property
    def text(self) -> str:
        """All segments' text, joined."""
        return "".join(segment.text for segment in self.segments).strip()
