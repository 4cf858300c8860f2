"""Decodes windows that stand alone, several at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import (
    get_compression_ratio,
    get_suppressed_tokens,
    merge_punctuations,
)

from steno.models import Windows
from steno.transcript import SAMPLE_RATE, Options, Segment, Span, Word
from steno.transcript.model import LOGPROB_THRESHOLD
from steno.transcription.batcher import Encoded
from steno.transcription.windows import (
    FULL_SECONDS,
    longest,
    sentences,
    window_seconds,
    without_echoes,
)

Kind = TypeVar("Kind", bound=Hashable)

FRAME_SAMPLES = 160
"""Samples of one frame of features: 10 ms."""

COMPRESSION_THRESHOLD = 2.4
"""Whisper's own limit: text that compresses better repeats itself (`transcribe.py`)."""

MOST_TOKENS_A_SECOND = 9.0
"""Tokens in a second of audio: more are no speech, but a decoder that finds no end."""

_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
"""Marks that belong to the word behind, and before them; those of faster-whisper."""

CANDIDATES = 2
"""Candidates that are followed first: five make hardly fewer mistakes, and take twice as long."""

DOUBTFUL_LOGPROB = -0.2
"""Mean log probability under which a window's text is decoded again with more candidates. With -0.3
more words are wrong in noise; with five candidates everywhere as many are, and it takes longer."""


@dataclass(frozen=True)
class _Found:
    """What the model made of one window.

    Attributes:
        text_tokens: without those that control it.
        encoded: the window, as the encoder left it.
    """

    text_tokens: list[int]
    text: str
    avg_logprob: float
    no_speech_prob: float
    encoded: Encoded

    @property
    def compression_ratio(self) -> float:
        return get_compression_ratio(self.text.strip()) if self.text.strip() else 0.0

    @property
    def repeats_itself(self) -> bool:
        return self.compression_ratio > COMPRESSION_THRESHOLD

    @property
    def rank(self) -> tuple[bool, float]:
        """The higher, the better."""
        return not self.repeats_itself, self.avg_logprob

    def looks_wrong(self, span: Span) -> bool:
        """Its own numbers say that it is not what was said."""
        return (
            self.repeats_itself
            or self.avg_logprob < LOGPROB_THRESHOLD
            or len(self.text_tokens) > MOST_TOKENS_A_SECOND * span.length / SAMPLE_RATE
        )


class WindowDecoder:
    """Decodes the windows of one recording with one set of options."""

    def __init__(
        self, whisper: WhisperModel, windows: Windows, beam_size: int, options: Options
    ) -> None:
        """Calls nothing yet.

        Args:
            whisper: whose model is a `Batcher`.
            windows: those that the model understands best.
            beam_size: candidates that are followed in windows that look wrong.
            options: what is asked for; the language is known.
        """
        self._whisper = whisper
        self._windows = windows
        self._beam_size = beam_size
        self._language = options.language_code
        self._tokenizer = Tokenizer(
            whisper.hf_tokenizer,
            whisper.model.is_multilingual,
            task="transcribe",
            language=options.language_code,
        )
        self._suppressed = get_suppressed_tokens(self._tokenizer, [-1])
        prompt = f" {options.prompt.strip()}" if options.prompt else ""
        self._prompt = whisper.get_prompt(
            self._tokenizer,
            self._tokenizer.encode(prompt) if prompt else [],
            without_timestamps=True,
            hotwords=options.hotwords_text or None,
        )

    def decode(
        self, samples: npt.NDArray[np.float32], spans: Sequence[Span]
    ) -> Iterator[tuple[Segment, ...]]:
        """The segments of each window, in order."""
        lengths = [window_seconds(self._windows, span.length) for span in spans]
        found = self._generate(
            self._encode(samples, spans, lengths), min(CANDIDATES, self._beam_size)
        )

        doubtful = [n for n, each in enumerate(found) if each.avg_logprob < DOUBTFUL_LOGPROB]
        _take_better(
            found, doubtful, self._generate([found[n].encoded for n in doubtful], self._beam_size)
        )

        for no_repeat in (0, 3):
            wrong = [
                n
                for n, span in enumerate(spans)
                if found[n].looks_wrong(span) and (found[n].repeats_itself or not no_repeat)
            ]
            encoded = self._encode(samples, [spans[n] for n in wrong], [FULL_SECONDS] * len(wrong))
            _take_better(found, wrong, self._generate(encoded, self._beam_size, no_repeat))

        words = self._words(found, spans)
        for each, told in zip(found, words, strict=True):
            yield tuple(self._segment(each, part) for part in sentences(told))

    def _encode(
        self, samples: npt.NDArray[np.float32], spans: Sequence[Span], seconds: Sequence[int]
    ) -> list[Encoded]:
        """Windows of one length go to the model in one call."""
        encoded: dict[int, Encoded] = {}
        for length, numbers in _alike(seconds).items():
            features = [
                self._whisper.feature_extractor(samples[spans[n].start : spans[n].end])
                for n in numbers
            ]
            frames = length * SAMPLE_RATE // FRAME_SAMPLES
            rows = self._whisper.encode(np.stack([pad_or_trim(each, frames) for each in features]))
            encoded |= {n: rows.row(row) for row, n in enumerate(numbers)}
        return [encoded[n] for n in range(len(spans))]

    def _generate(
        self, encoded: Sequence[Encoded], beam_size: int, no_repeat_ngram_size: int = 0
    ) -> list[_Found]:
        found: dict[int, _Found] = {}
        for numbers in _alike([each.shape for each in encoded]).values():
            results = self._whisper.model.generate(
                Encoded.join([encoded[n] for n in numbers]),
                [self._prompt] * len(numbers),
                beam_size=beam_size,
                no_repeat_ngram_size=no_repeat_ngram_size,
                max_length=self._whisper.max_length,
                return_scores=True,
                return_no_speech_prob=True,
                suppress_tokens=self._suppressed,
            )
            for n, result in zip(numbers, results, strict=True):
                found[n] = self._found(result, encoded[n])
        return [found[n] for n in range(len(encoded))]

    def _found(self, result: Any, encoded: Encoded) -> _Found:
        tokens = result.sequences_ids[0]
        text_tokens = [token for token in tokens if token < self._tokenizer.eot]
        return _Found(
            text_tokens,
            self._tokenizer.decode(text_tokens),
            # Whisper's own mean: the end of text is a token too.
            result.scores[0] * len(tokens) / (len(tokens) + 1),
            result.no_speech_prob,
            encoded,
        )

    def _words(self, found: Sequence[_Found], spans: Sequence[Span]) -> list[list[Word]]:
        """When each word of each window is said."""
        words: list[list[Word]] = [[] for _ in found]
        with_text = [n for n, each in enumerate(found) if each.text.strip()]
        for alike in _alike([found[n].encoded.shape for n in with_text]).values():
            numbers = [with_text[n] for n in alike]
            aligned = self._whisper.find_alignment(
                self._tokenizer,
                [found[n].text_tokens for n in numbers],
                Encoded.join([found[n].encoded for n in numbers]),
                [spans[n].length // FRAME_SAMPLES for n in numbers],
            )
            for n, timings in zip(numbers, aligned, strict=True):
                merge_punctuations(timings, _PREPENDED, _APPENDED)
                words[n] = without_echoes([*_told(timings, spans[n])])
        return words

    def _segment(self, found: _Found, words: tuple[Word, ...]) -> Segment:
        return Segment(
            start=words[0].start,
            end=words[-1].end,
            text="".join(word.word for word in words),
            words=words,
            avg_logprob=found.avg_logprob,
            no_speech_prob=found.no_speech_prob,
            compression_ratio=found.compression_ratio,
            language=self._language,
        )


def _told(timings: Sequence[dict[str, Any]], span: Span) -> Iterator[Word]:
    """Words on the recording's clock. A long one ends early: what follows it is silence."""
    first, last = span.start / SAMPLE_RATE, span.end / SAMPLE_RATE
    for timing in timings:
        if text := timing["word"]:
            start = min(first + float(timing["start"]), last)
            end = min(first + float(timing["end"]), last, start + longest(text))
            yield Word(start, max(start, end), text, float(timing["probability"]))


def _alike(kinds: Sequence[Kind]) -> dict[Kind, list[int]]:
    """Where each kind is."""
    places: defaultdict[Kind, list[int]] = defaultdict(list)
    for n, kind in enumerate(kinds):
        places[kind].append(n)
    return places


def _take_better(found: list[_Found], places: Sequence[int], others: Sequence[_Found]) -> None:
    for n, other in zip(places, others, strict=True):
        found[n] = max(found[n], other, key=lambda each: each.rank)
