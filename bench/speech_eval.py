"""`make speech-eval`: what Steno and faster-whisper make of natural speech, and of what is none.

Recordings are sent through the whole platform, and read by faster-whisper's two pipelines as they
are shipped (beam 5), on the same model. The table goes to docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.natural import (
    Recording,
    compare,
    german,
    hum_and_tones,
    recordings,
    silence,
    telephone,
    with_noise,
    write_mp3,
)
from bench.side_by_side import Measured, ended, platform, raw, write_wav
from steno.platform.wellknown import seconds_of
from steno.transcript import SAMPLE_RATE
from steno.v1 import transcript_pb2

HOW = ("steno", "sequential", "batched")
STRETCH = 4
"""Words in a row that are missing: they were not misheard, but lost."""
SILENCE_SECONDS, TONES_SECONDS = 300, 120


@dataclass(frozen=True)
class Heard:
    """What somebody made of a recording.

    Attributes:
        text: of it.
        words: when each begins and ends, in seconds.
        speech: seconds that are said to hold speech; None where nothing is said of it.
    """

    text: str
    words: Sequence[tuple[float, float]]
    speech: float | None = None


@dataclass(frozen=True)
class Condition:
    """A way in which recordings reach the listener.

    Attributes:
        name: for the table.
        recordings: what is said.
        write: writes the file that is sent; returns its path.
    """

    name: str
    recordings: Sequence[Recording]
    write: Callable[[Path, np.ndarray], Path]


def conditions() -> list[Condition]:
    """All that the model in English is to understand, and then what nobody says."""

    def changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, np.ndarray], Path]:
        return lambda path, samples: write_wav(path.with_suffix(".wav"), change(samples))

    said = recordings()

    wav = changed(lambda samples: samples)
    nothing = [
        Recording("silence", silence(SILENCE_SECONDS), "", ()),
        Recording("tones", hum_and_tones(TONES_SECONDS), "", ()),
    ]
    return [
        Condition("clean", said, wav),
        Condition("noise, 20 dB", said, changed(lambda samples: with_noise(samples, 20))),
        Condition("noise, 10 dB", said, changed(lambda samples: with_noise(samples, 10))),
        Condition("telephone, 8 kHz", said, changed(telephone)),
        Condition("MP3, 32 kbit/s", said, lambda path, s: write_mp3(path.with_suffix(".mp3"), s)),
        *(Condition(f"{each.name}, {each.seconds:.0f} s", [each], wav) for each in nothing),
    ]


async def steno(
    measured: Measured, paths: Sequence[Path], language: str
) -> tuple[float, list[Heard]]:
    """All files at once, upload to transcript."""
    config = transcript_pb2.RecognitionConfig(language_code=language, enable_word_time_offsets=True)
    began = time.perf_counter()

    async def one(path: Path) -> Heard:
        audio = await measured.client.upload(path.name, path.read_bytes())
        job = await measured.client.create_job(audio.audio_id, config)
        await ended(measured.client, job.job_id)
        told = await measured.client.transcript(job.job_id)
        words = [
            (seconds_of(word.start_offset), seconds_of(word.end_offset))
            for segment in told.segments
            for word in segment.words
        ]
        return Heard(told.text, words, seconds_of(told.coverage.speech_duration))

    found = await asyncio.gather(*map(one, paths))
    return time.perf_counter() - began, found


def row(condition: Condition, how: str, seconds: float, heard: Sequence[Heard]) -> list[str]:
    """One line of the table."""
    total = sum(each.seconds for each in condition.recordings)
    speed = f"{total / seconds:.1f}"
    repeated = sum(repeats(each.text) for each in heard)
    if not any(each.text for each in condition.recordings):
        inserted = sum(len(each.text.split()) for each in heard)
        return [condition.name, how, "", f"{inserted}", "", f"{repeated}", "", "", speed]
    counts = compare(
        [each.text for each in condition.recordings],
        [each.text for each in heard],
        condition.recordings[0].language,
    )
    lost = sum(
        chunk.ref_end_idx - chunk.ref_start_idx
        for sentence in counts.alignments
        for chunk in sentence
        if chunk.type == "delete" and chunk.ref_end_idx - chunk.ref_start_idx >= STRETCH
    )
    errors = [
        error
        for recording, each in zip(condition.recordings, heard, strict=True)
        for error in time_errors(recording.sentences, each.words)
    ]
    speech = ""
    if all(each.speech is not None for each in heard):
        spoken = sum(end - start for each in condition.recordings for start, end in each.sentences)
        speech = f"{100 * sum(each.speech or 0 for each in heard) / spoken:.0f} %"
    return [
        condition.name, how, f"{100 * counts.wer:.2f} %", f"{counts.insertions}", f"{lost}",
        f"{repeated}", f"{np.mean(errors):.2f} s" if errors else "", speech, speed,
    ]  # fmt: skip


def repeats(text: str) -> int:
    """Words that belong to a loop: one to eight words that are said three times in a row."""
    letters = re.sub(r"[^\w\s]", "", text.lower())
    loops = re.finditer(r"\b(\w+(?: \w+){0,7}?)(?: \1){2,}\b", " ".join(letters.split()))
    return sum(len(loop.group().split()) for loop in loops)


def time_errors(
    sentences: Iterable[tuple[float, float]], words: Sequence[tuple[float, float]]
) -> list[float]:
    """Seconds from each edge of a sentence to the nearest edge of a word of the same kind."""
    if not words:
        return []
    starts, ends = np.array([word[0] for word in words]), np.array([word[1] for word in words])
    return [
        float(np.min(np.abs(edges - edge)))
        for start, end in sentences
        for edges, edge in ((starts, start), (ends, end))
    ]


async def evaluate(name: str, wanted: Sequence[Condition]) -> list[list[str]]:
    """All conditions with one model; each as Steno and as faster-whisper hear it."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="steno-speech-") as folder:
        async with platform(1, name) as measured:
            steps = tqdm(total=len(wanted) * len(HOW), disable=not sys.stderr.isatty(), unit="run")
            for condition in wanted:
                paths = [
                    condition.write(Path(folder) / each.name, each.samples)
                    for each in condition.recordings
                ]
                language = condition.recordings[0].language
                for how in HOW:
                    if how == "steno":
                        seconds, heard = await steno(measured, paths, language)
                    else:
                        options = ("--words", "--language", language)
                        seconds, found = await raw(how, paths, name, *options)
                        heard = [Heard(each["text"], each["words"]) for each in found]
                    rows.append([name, *row(condition, how, seconds, heard)])
                    steps.update()
            steps.close()
    return rows


HEADS = (
    "model", "recordings", "heard by", "wrong words", "inserted", "lost in stretches",
    "in loops", "time error", "speech found", "speed",
)  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> str:
    """As Markdown."""
    lines = [HEADS, ["---"] * len(HEADS), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.speech_eval", description=__doc__)
    parser.add_argument("--model", default="tiny.en", help="tiny.en, base; default: tiny.en")
    options = parser.parse_args()
    wanted = conditions()
    if options.model != "tiny.en":
        wanted.append(Condition("German", [german()], lambda path, s: write_wav(path, s)))
    print(table(asyncio.run(evaluate(options.model, wanted))))
    minutes = sum(each.seconds for each in recordings()) / 60
    print(f"{minutes:.0f} minutes in English, {os.cpu_count()} cores, {SAMPLE_RATE} Hz.")


if __name__ == "__main__":
    main()
