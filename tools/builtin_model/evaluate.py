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
    """Errors counted over recordings; `took` is processor time in seconds."""

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


def score(transcribe: Callable[..., Any], said: list[Recording], **options: Any) -> Score:
    """Transcribes recordings and counts what is wrong."""
    total = Score()
    for recording in said:
        began = time.process_time()
        segments, _ = transcribe(recording.audio, **options)
        heard = plain(" ".join(segment.text for segment in segments))
        total.took += time.process_time() - began
        words = plain(recording.text)
        errors = word_errors(words, heard)
        total.words += len(words)
        total.errors += errors
        total.seconds += recording.seconds
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


def evaluate(folder: Path, count: int, minutes: int, threads: int, *, card: bool) -> None:
    """Prints the table of the model card, and with `card` writes it there.

    count: recordings of 5 to 60 s. minutes: length of the long recording.
    """
    rows: list[tuple[str, str]] = []

    def tell(what: str, value: str) -> None:
        rows.append((what, value))
        print(f"{what}: {value}", flush=True)

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
    batched = BatchedInferencePipeline(model)
    rng = random.Random(1_000_003)
    clean = [recordings.held_out(rng, rng.uniform(5, 60)) for _ in range(count)]
    kinds = {
        "clean": clean,
        "noise, 15 to 25 dB": [recordings.noisy(rng, r, rng.uniform(15, 25)) for r in clean],
        "noise, 15 dB": [recordings.noisy(rng, r, 15) for r in clean],
        "telephone": [recordings.by_telephone(r) for r in clean],
        "clipped": [recordings.clipped(r) for r in clean],
        "level changes": [recordings.level_changes(r) for r in clean],
    }
    for name, said in kinds.items():
        result = score(model.transcribe, said)
        tell(f"WER, {name} ({result.words} words)", f"{result.word_error_rate:.1f} %")
    for name, transcribe, options in (
        ("clean, vad_filter", model.transcribe, {"vad_filter": True}),
        ("clean, batched pipeline", batched.transcribe, {"batch_size": 8}),
        ("clean, no timestamps", model.transcribe, {"without_timestamps": True}),
    ):
        result = score(transcribe, clean, **options)
        tell(f"WER, {name}", f"{result.word_error_rate:.1f} %")
    for name, value in timing(model, clean).items():
        tell(name, f"{value:.2f}")
    for kind in ("silence", "noise", "tones"):
        audio = recordings.without_speech(rng, kind, 200)
        on = words_in(model.transcribe(audio, vad_filter=True)[0])
        off = words_in(model.transcribe(audio)[0])
        tell(f"words heard in 200 s of {kind}", f"{on} with vad_filter, {off} without")
    single = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    tell(
        "speed on one core, in processor time",
        f"{score(single.transcribe, clean).speed:.0f} times real time",
    )
    long = recordings.held_out(random.Random(5), minutes * 60, long_pauses=True)
    for name, transcribe in (("sequential", model.transcribe), ("batched", batched.transcribe)):
        result = score(transcribe, [long])
        tell(
            f"WER, {long.seconds / 60:.0f} minutes with pauses, {name}",
            f"{result.word_error_rate:.1f} %",
        )
    if card:
        write_card(folder / "README.md", rows)


def write_card(path: Path, rows: list[tuple[str, str]]) -> None:
    """Puts the table where the card says "## Measured", in place of what is there."""
    table = "".join(f"| {what} | {value} |\n" for what, value in rows)
    before, _, after = path.read_text().partition("<!-- table -->\n")
    _, _, after = after.partition("<!-- end of table -->\n")
    path.write_text(
        f"{before}<!-- table -->\n| what | result |\n| --- | --- |\n{table}"
        f"<!-- end of table -->\n{after}"
    )
