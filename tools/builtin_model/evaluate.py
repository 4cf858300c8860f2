"""Measures a model's folder through faster-whisper with its defaults.

Sentences, voices and speeds are ones that training never had.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from . import recordings
from .recordings import Recording
from .scoring import pairs, plain, word_errors


@dataclass
class Score:
    """Errors counted over recordings."""

    words: int = 0
    errors: int = 0
    seconds: float = 0.0
    took: float = 0.0

    @property
    def word_error_rate(self) -> float:
        """Errors for a hundred words."""
        return 100 * self.errors / max(1, self.words)

    @property
    def speed(self) -> float:
        """Times faster than real time."""
        return self.seconds / self.took


def score(
    transcribe: Callable[..., Any], said: list[Recording], *, show: bool = False, **options: Any
) -> Score:
    """Transcribes recordings and counts what is wrong."""
    total = Score()
    for recording in said:
        began = time.monotonic()
        segments, _ = transcribe(recording.audio, **options)
        heard = plain(" ".join(segment.text for segment in segments))
        total.took += time.monotonic() - began
        words = plain(recording.text)
        errors = word_errors(words, heard)
        total.words += len(words)
        total.errors += errors
        total.seconds += recording.seconds
        if show and errors:
            print(f"  {errors} of {len(words)}")
            print("   said ", " ".join(words))
            print("   heard", " ".join(heard))
    return total


def timing(model: WhisperModel, said: list[Recording]) -> dict[str, float]:
    """How far word times and segment ends are from espeak-ng's, in seconds."""
    starts: list[float] = []
    ends: list[float] = []
    segment_ends: list[float] = []
    for recording in said:
        segments = list(model.transcribe(recording.audio, word_timestamps=True)[0])
        heard = [word for segment in segments for word in segment.words or []]
        true = recording.words
        for a, b in pairs(
            [plain(w.text)[0] for w in true], [" ".join(plain(w.word)) for w in heard]
        ):
            starts.append(abs(true[a].start - heard[b].start))
            ends.append(abs(true[a].end - heard[b].end))
        sentence_ends = [sentence[-1].end for sentence in recording.sentences]
        untimed = list(model.transcribe(recording.audio)[0])
        segment_ends += [min(abs(s.end - e) for e in sentence_ends) for s in untimed]
    return {
        "word starts, mean": statistics.mean(starts),
        "word ends, mean": statistics.mean(ends),
        "segment ends, mean": statistics.mean(segment_ends),
        "segment ends within 0.3 s, share": sum(e <= 0.3 for e in segment_ends) / len(segment_ends),
    }


def words_in(segments: Any) -> int:
    """Words in a transcript."""
    return sum(len(plain(segment.text)) for segment in segments)


def evaluate(folder: Path, count: int, threads: int, *, quick: bool = False) -> None:
    """Prints the table of the model card."""
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
    batched = BatchedInferencePipeline(model)
    rng = random.Random(1_000_003)
    clean = [recordings.held_out(rng, rng.uniform(5, 60)) for _ in range(count)]
    kinds: dict[str, list[Recording]] = {
        "clean": clean,
        "noise, 15 to 25 dB": [recordings.noisy(rng, r, rng.uniform(15, 25)) for r in clean],
        "noise, 15 dB": [recordings.noisy(rng, r, 15) for r in clean],
        "telephone": [recordings.by_telephone(r) for r in clean],
        "clipped": [recordings.clipped(r) for r in clean],
        "level changes": [recordings.level_changes(r) for r in clean],
    }
    for name, said in list(kinds.items())[: 2 if quick else None]:
        result = score(model.transcribe, said, show=name == "clean" and quick)
        print(
            f"{name}: WER {result.word_error_rate:.2f} % of {result.words} words, "
            f"{result.speed:.0f} times real time",
            flush=True,
        )
    for name, value in timing(model, clean[: 3 if quick else 12]).items():
        print(f"{name}: {value:.3f}", flush=True)
    with_vad = score(model.transcribe, clean, vad_filter=True)
    print(f"clean with vad_filter: WER {with_vad.word_error_rate:.2f} %", flush=True)
    in_batches = score(batched.transcribe, clean, batch_size=8)
    print(f"clean, batched: WER {in_batches.word_error_rate:.2f} %", flush=True)
    for kind in ("silence", "noise", "tones"):
        audio = recordings.without_speech(rng, kind, 20 if quick else 200)
        on = words_in(model.transcribe(audio, vad_filter=True)[0])
        off = words_in(model.transcribe(audio)[0])
        print(f"{len(audio) // 16000} s of {kind}: {on} words with vad, {off} without", flush=True)
    if quick:
        return
    single = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    print(f"one core: {score(single.transcribe, clean[:6]).speed:.0f} times real time", flush=True)
    long = recordings.held_out(random.Random(5), 30 * 60, long_pauses=True)
    for name, transcribe in (("sequential", model.transcribe), ("batched", batched.transcribe)):
        result = score(transcribe, [long])
        print(f"{long.seconds / 60:.0f} minutes, {name}: WER {result.word_error_rate:.2f} %")
