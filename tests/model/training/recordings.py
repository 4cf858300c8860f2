"""Recordings of which one knows what is said when: for measuring, for tests, for examples."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from .speech import SAMPLE_RATE, Speaker, Word, random_speaker, speak
from .vocabulary import held_out_sentence
from .windows import Audio, noise, telephone, tones


@dataclass(frozen=True)
class Recording:
    """Audio at 16 kHz and the truth about it, in seconds."""

    audio: Audio
    sentences: list[list[Word]]

    @property
    def text(self) -> str:
        """Everything that is said."""
        return " ".join(word.text for sentence in self.sentences for word in sentence)

    @property
    def words(self) -> list[Word]:
        """Every word in order."""
        return [word for sentence in self.sentences for word in sentence]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.audio) / SAMPLE_RATE


def read_aloud(
    sentences: Iterable[tuple[str, Speaker, float]],
    *,
    lead: float = 0.3,
    level: float = 0.7,
    seconds: float = math.inf,
) -> Recording:
    """Sentences, each with its speaker and the pause after it in seconds.

    seconds: once so much is said, no further sentence begins.
    """
    pieces = [np.zeros(int(lead * SAMPLE_RATE), np.float32)]
    clock = len(pieces[0])
    placed = []
    for text, speaker, pause in sentences:
        if clock > seconds * SAMPLE_RATE:
            break
        said = speak(text, speaker)
        begin = clock / SAMPLE_RATE
        placed.append([Word(w.text, begin + w.start, begin + w.end) for w in said.words])
        audio = said.audio.astype(np.float32)
        pieces += [
            audio * (level / max(1.0, float(np.abs(audio).max()))),
            np.zeros(int(pause * SAMPLE_RATE), np.float32),
        ]
        clock += len(pieces[-2]) + len(pieces[-1])
    return Recording(np.concatenate(pieces), placed)


def held_out(rng: random.Random, seconds: float, **settings: Any) -> Recording:
    """Sentences, voice and speed that training never had; one speaker.

    settings: what of the speaker is not drawn.
    """
    speaker = replace(random_speaker(rng, held_out=True), **settings)
    return read_aloud(_said(rng, speaker), level=rng.uniform(0.3, 0.9), seconds=seconds)


def long_talk(rng: random.Random, seconds: float) -> Recording:
    """The same of many speakers by turns, with a longer pause after one sentence in ten."""

    def turns() -> Iterator[tuple[str, Speaker, float]]:
        while True:
            said = _said(rng, random_speaker(rng, held_out=True))
            for text, speaker, pause in islice(said, rng.randint(10, 60)):
                yield text, speaker, rng.uniform(1, 6) if rng.random() < 0.1 else pause

    return read_aloud(turns(), seconds=seconds)


def _said(rng: random.Random, speaker: Speaker) -> Iterator[tuple[str, Speaker, float]]:
    """Without end."""
    while True:
        yield held_out_sentence(rng), speaker, rng.uniform(0.25, 0.9)


NOISES = 12
"""The seed of the noises that are added here; training has others."""


def noisy(rng: random.Random, recording: Recording, decibels: float) -> Recording:
    """With noise at this distance below the speech."""
    audio = recording.audio
    spoken = audio[np.abs(audio) > 1e-3]
    level = float(np.sqrt(np.mean(spoken**2))) * 10 ** (-decibels / 20)
    return replace(recording, audio=np.clip(audio + _noise(rng, len(audio)) * level, -1, 1))


def _noise(rng: random.Random, length: int) -> Audio:
    minute = 60 * SAMPLE_RATE
    parts = [noise(rng, min(minute, length - at), NOISES) for at in range(0, length, minute)]
    return np.concatenate(parts)


def clipped(recording: Recording, times: float = 5) -> Recording:
    """Recorded far too loud."""
    loud = recording.audio * (times / float(np.abs(recording.audio).max()))
    return replace(recording, audio=np.clip(loud, -1, 1))


def by_telephone(recording: Recording) -> Recording:
    """Through a telephone: 300 to 3,400 Hz."""
    return replace(recording, audio=telephone(recording.audio))


def level_changes(recording: Recording) -> Recording:
    """Loud and quiet by turns, up to 16 dB apart."""
    time = np.arange(len(recording.audio)) / SAMPLE_RATE
    curve = (0.58 + 0.42 * np.sin(time * 1.1)).astype(np.float32)
    return replace(recording, audio=recording.audio * curve)


def without_speech(rng: random.Random, kind: str, seconds: int) -> Audio:
    """Silence, noise or simple music."""
    length = seconds * SAMPLE_RATE
    if kind == "silence":
        return np.zeros(length, np.float32)
    if kind == "noise":
        parts = [
            _noise(rng, 10 * SAMPLE_RATE) * rng.choice((0.003, 0.02, 0.1))
            for _ in range(0, seconds, 10)
        ]
        return np.concatenate(parts)[:length]
    parts = [tones(rng, 10 * SAMPLE_RATE) * rng.uniform(0.1, 0.6) for _ in range(0, seconds, 10)]
    return np.concatenate(parts)[:length]


CODECS = {
    "wav": ("pcm_s16le", "wav", 16_000), "flac": ("flac", "flac", 16_000),
    "opus": ("libopus", "ogg", 48_000), "ogg": ("libopus", "ogg", 48_000),
    "mp3": ("libmp3lame", "mp3", 16_000),
}  # fmt: skip


def encode(audio: Audio, path: Path, bit_rate: int = 24_000) -> None:
    """Writes an audio file; its ending says in which format."""
    codec, container_name, rate = CODECS[path.suffix[1:]]
    samples = (np.clip(audio, -1, 1) * 32767).astype(np.int16)[None, :]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_name) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if codec not in ("pcm_s16le", "flac"):
            stream.bit_rate = bit_rate
        resampler = av.AudioResampler(
            format=stream.format.name, layout="mono", rate=rate,
            frame_size=stream.codec_context.frame_size or 0,
        )  # fmt: skip
        block = 16_000
        for begin in range(0, samples.shape[1], block):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, begin : begin + block]), "s16", "mono"
            )
            frame.sample_rate = 16_000
            frame.pts = begin
            for converted in resampler.resample(frame):
                container.mux(stream.encode(converted))
        for converted in resampler.resample(None):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def save_truth(recording: Recording, path: Path) -> None:
    """Writes the words of a recording with their times, one sentence a list."""
    truth = [
        [[word.text, round(word.start, 3), round(word.end, 3)] for word in sentence]
        for sentence in recording.sentences
    ]
    path.write_text(json.dumps(truth, separators=(",", ":")).replace("]],[[", "]],\n[[") + "\n")
