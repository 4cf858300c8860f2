"""Makes a recording of natural speech from a text: python tools/natural_speech.py TEXT.txt

Each paragraph is spoken by the next of some voices, each sentence after a pause. The recording is
written beside the text as Opus; with --times also when each sentence is said, as JSON. It needs
flite 2.2, for other languages than English espeak-ng 1.51 (Debian has both), and the packages that
transcribe. The same text gives the same recording.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

VOICES = ("slt", "rms", "awb")
"""A woman and a man from the United States, and a man from Scotland."""
RATE = 16_000
PAUSES = (0.3, 0.8)
"""Shortest and longest silence before a sentence, in seconds."""
LOUD = 300
"""Of 32,767: what is louder is part of a sentence, and not the silence around it."""
BITS_PER_SECOND = 24_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument(
        "--voice",
        dest="voices",
        action="append",
        help=f"a voice of flite, or espeak:LANGUAGE; default: {', '.join(VOICES)} in turn",
    )
    parser.add_argument("--times", action="store_true", help="write TEXT.json as well")
    options = parser.parse_args()
    parts, times, at = [], [], 0
    for pause, sentence, speech in spoken(options.text.read_text(), options.voices or VOICES):
        at += len(pause)
        loud = np.flatnonzero(np.abs(speech) > LOUD)
        if sentence:
            start, end = ((at + int(edge)) / RATE for edge in (loud[0], loud[-1] + 1))
            times.append({"start": round(start, 3), "end": round(end, 3), "sentence": sentence})
        at += len(speech)
        parts += [pause, speech]
    write(options.text.with_suffix(".opus"), np.concatenate(parts))
    if options.times:
        lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in times)
        options.text.with_suffix(".json").write_text(f"[\n{lines}\n]\n")


def spoken(text: str, voices: Sequence[str]) -> Iterator[tuple[np.ndarray, str, np.ndarray]]:
    """Pauses, and the sentences after them: mono, 16 kHz, 16 bit. The last pause has none."""
    pauses = random.Random(1)
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        voice = voices[number % len(voices)]
        for sentence in re.split(r"(?<=[.?!])\s+", " ".join(paragraph.split())):
            pause = np.zeros(round(pauses.uniform(*PAUSES) * RATE), np.int16)
            yield pause, sentence, said(sentence, voice)
    yield np.zeros(RATE // 2, np.int16), "", np.zeros(0, np.int16)


def said(sentence: str, voice: str) -> np.ndarray:
    """One sentence."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "-t", sentence, "-o", file.name]
        if voice.startswith("espeak:"):
            language = voice.removeprefix("espeak:")
            command = ["espeak-ng", "-v", language, "-s", "120", "-w", file.name, sentence]
        subprocess.run(command, check=True)
        with av.open(file.name) as container:
            resampler = av.AudioResampler("s16", "mono", RATE)
            frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
            frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def write(path: Path, samples: np.ndarray) -> None:
    """Encodes a recording as Opus."""
    with av.open(str(path), "w", "ogg") as container:
        stream = container.add_stream("libopus", rate=RATE, layout="mono")
        stream.bit_rate = BITS_PER_SECOND
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
