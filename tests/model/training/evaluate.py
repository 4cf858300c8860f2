"""Measures a model's folder through faster-whisper: with its defaults, batched, and as Steno asks.

Sentences, voices and speeds are ones that training never had, but for the samples.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel, decode_audio

from . import recordings
from .recordings import Recording
from .scoring import longest_runs, pairs, plain, word_errors
from .speech import Word

EXAMPLES, FIXED = Path("examples/audio"), Path("tests/model/data")
STENO = {"vad_filter": True, "condition_on_previous_text": False, "temperature": 0.0}
"""What the workers ask of faster-whisper (services/steno/transcription/whisper.py)."""


@dataclass
class Score:
    """Errors counted over recordings; `took` is processor time in seconds."""

    words: int = 0
    errors: int = 0
    marks: int = 0
    """Errors where capitals, commas and stops count, too."""
    lost: int = 0
    """The most words in a row."""
    added: int = 0
    """The most words in a row."""
    seconds: float = 0.0
    took: float = 0.0

    @property
    def word_error_rate(self) -> float:
        """Errors for a hundred words."""
        return 100 * self.errors / max(1, self.words)

    def __str__(self) -> str:
        """In the table."""
        return f"{self.word_error_rate:.2f} %"


def score(transcribe: Callable[..., Any], said: Iterable[Recording], **options: Any) -> Score:
    """Transcribes recordings and counts what is wrong."""
    total = Score()
    for recording in said:
        began = time.process_time()
        segments, _ = transcribe(recording.audio, **options)
        text = " ".join(segment.text for segment in segments)
        total.took += time.process_time() - began
        words, heard = plain(recording.text), plain(text)
        total.words += len(words)
        total.errors += word_errors(words, heard)
        total.marks += word_errors(recording.text.split(), text.split())
        lost, added = longest_runs(words, heard)
        total.lost, total.added = max(total.lost, lost), max(total.added, added)
        total.seconds += recording.seconds
    return total


def timing(model: WhisperModel, said: list[Recording]) -> dict[str, str]:
    """How far word times and segment ends are from espeak-ng's, in seconds."""
    starts: list[float] = []
    ends: list[float] = []
    segment_ends: list[float] = []
    sentence_ends: list[float] = []
    for recording in said:
        segments = list(model.transcribe(recording.audio, word_timestamps=True)[0])
        heard = [word for segment in segments for word in segment.words or []]
        true = recording.words
        for a, b in pairs(
            [plain(w.text)[0] for w in true], [" ".join(plain(w.word)) for w in heard]
        ):
            starts.append(abs(true[a].start - heard[b].start))
            ends.append(abs(true[a].end - heard[b].end))
        said_ends = [sentence[-1].end for sentence in recording.sentences]
        heard_ends = [segment.end for segment in model.transcribe(recording.audio)[0]]
        segment_ends += [min(abs(end - other) for other in said_ends) for end in heard_ends]
        sentence_ends += [min(abs(end - other) for other in heard_ends) for end in said_ends]
    return {
        "word starts, mean": f"{statistics.mean(starts):.2f} s",
        "word ends, mean": f"{statistics.mean(ends):.2f} s",
        "segment ends, mean": f"{statistics.mean(segment_ends):.2f} s",
        "segments that end within 0.3 s of a sentence's end": within(segment_ends),
        "sentences that end within 0.3 s of a segment's end": within(sentence_ends),
    }


def within(errors: list[float]) -> str:
    """The share of them that are 0.3 s at most."""
    return f"{100 * sum(error <= 0.3 for error in errors) / len(errors):.0f} %"


def words_in(segments: Any) -> int:
    """Words in a transcript."""
    return sum(len(plain(segment.text)) for segment in segments)


def sample(path: Path) -> Recording:
    """A recording of examples/audio; when its words are said is not known."""
    lines = path.with_suffix(".txt").read_text().splitlines()
    return Recording(
        decode_audio(str(path)), [[Word(word, 0, 0) for word in line.split()] for line in lines]
    )


def fixed(name: str) -> Recording:
    """One of the two recordings that the tests measure."""
    truth = json.loads((FIXED / f"{name}.json").read_text())
    return Recording(
        decode_audio(str(FIXED / f"{name}.opus")),
        [[Word(*word) for word in part] for part in truth],
    )


def evaluate(folder: Path, count: int, minutes: int, threads: int, *, card: bool) -> None:
    """Prints the tables of the model card, and with `card` writes them there.

    count: recordings of 5 to 60 s. minutes: length of the long recording.
    """
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
    batched = BatchedInferencePipeline(model)
    rng = random.Random(1_000_003)
    clean = [recordings.held_out(rng, rng.uniform(5, 60)) for _ in range(count)]
    long = [recordings.long_talk(random.Random(5), minutes * 60)]
    talk = f"{long[0].seconds / 60:.0f} minutes, speakers by turns, with pauses"
    short = ("numbers.flac", "spelling.wav", "week.ogg", "telephone.mp3", "long-silence.flac")
    kinds = {
        "clean": clean,
        "noise, 15 to 25 dB": [recordings.noisy(rng, r, rng.uniform(15, 25)) for r in clean],
        "noise, 15 dB": [recordings.noisy(rng, r, 15) for r in clean],
        "telephone": [recordings.by_telephone(r) for r in clean],
        "clipped": [recordings.clipped(r) for r in clean],
        "level changes": [recordings.level_changes(r) for r in clean],
        "slow: 100 to 117 words a minute": [
            recordings.held_out(rng, 30, rate=rng.randint(100, 117)) for _ in range(count // 2)
        ],
        "fast: 208 to 220 words a minute": [
            recordings.held_out(rng, 30, rate=rng.randint(208, 220)) for _ in range(count // 2)
        ],
        talk: long,
        "the tests' fixed part, clean": [fixed("clean")],
        "the tests' fixed part, noise": [fixed("noisy")],
        "the short samples": [sample(EXAMPLES / name) for name in short],
        "the demo": [sample(EXAMPLES / "demo.opus")],
        "ten minutes": [sample(EXAMPLES / "ten-minutes.opus")],
    }
    table: list[tuple[str, ...]] = [("WER", "words", "defaults", "batched", "Steno")]
    asked: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = (
        (model.transcribe, {}), (batched.transcribe, {"batch_size": 8}), (model.transcribe, STENO),
    )  # fmt: skip
    by_defaults: dict[str, Score] = {}
    for kind, said in kinds.items():
        scores = [score(transcribe, said, **options) for transcribe, options in asked]
        by_defaults[kind] = scores[0]
        table.append((kind, str(scores[0].words), *map(str, scores)))
        print(*table[-1], sep="  ", flush=True)
    rows: list[tuple[str, ...]] = [("what", "result")]

    def tell(what: str, value: str) -> None:
        rows.append((what, value))
        print(f"{what}: {value}", flush=True)

    tell(f"longest stretch lost in {talk}", f"{by_defaults[talk].lost} words")
    tell(f"longest stretch added to {talk}", f"{by_defaults[talk].added} words")
    marks = by_defaults["clean"]
    tell("WER, clean, capitals and signs counted", f"{100 * marks.marks / marks.words:.2f} %")
    tell("WER, clean, no timestamps", str(score(model.transcribe, clean, without_timestamps=True)))
    for name, value in timing(model, clean).items():
        tell(name, value)
    for kind in ("silence", "noise", "tones"):
        audio = recordings.without_speech(rng, kind, 200)
        on = words_in(model.transcribe(audio, vad_filter=True)[0])
        off = words_in(model.transcribe(audio)[0])
        tell(f"words heard in 200 s of {kind}", f"{on} with vad_filter, {off} without")
    single = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    one_core = score(single.transcribe, clean)
    tell(
        "speed on one core, in processor time",
        f"{one_core.seconds / one_core.took:.0f} times real time",
    )
    if card:
        write_card(folder / "README.md", markdown(table) + "\n" + markdown(rows))


def markdown(table: list[tuple[str, ...]]) -> str:
    """A table whose first row is its heading."""
    heading, *rows = ("| " + " | ".join(row) + " |\n" for row in table)
    return heading + "| --- " * len(table[0]) + "|\n" + "".join(rows)


def write_card(path: Path, tables: str) -> None:
    """Puts the tables between the card's marks, in place of what is there."""
    before, _, after = path.read_text().partition("<!-- table -->\n")
    _, _, after = after.partition("<!-- end of table -->\n")
    path.write_text(f"{before}<!-- table -->\n{tables}<!-- end of table -->\n{after}")
