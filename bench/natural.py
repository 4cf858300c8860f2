"""Natural speech: flite's recorded voices, the text that they read, and when each sentence is said.

`speech/` holds the texts, and what tools/natural_speech.py made of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import av
import jiwer
import numpy as np
from faster_whisper import decode_audio
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from steno.transcript import SAMPLE_RATE

SPEECH = Path(__file__).parent / "speech"
TELEPHONE_RATE = 8_000


@dataclass(frozen=True)
class Recording:
    """What somebody says.

    Attributes:
        name: of the file without its ending.
        samples: mono, 16 kHz, 16 bit.
        text: what is said.
        sentences: when each begins and ends, in seconds.
        language: that is spoken.
    """

    name: str
    samples: np.ndarray
    text: str
    sentences: tuple[tuple[float, float], ...]
    language: str = "en"

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / SAMPLE_RATE


@cache
def recordings() -> tuple[Recording, ...]:
    """Those in English: thirteen minutes."""
    names = sorted(path.stem for path in SPEECH.glob("*.opus"))
    return tuple(_read(name) for name in names if name != "german")


@cache
def german() -> Recording:
    """Half a minute in German."""
    return replace(_read("german"), language="de")


def _read(name: str) -> Recording:
    file = SPEECH / name
    samples = decode_audio(str(file.with_suffix(".opus")))
    times = json.loads(file.with_suffix(".json").read_text())
    return Recording(
        name,
        _as_integers(samples),
        file.with_suffix(".txt").read_text(),
        tuple((each["start"], each["end"]) for each in times),
    )


def beginning(recording: Recording, seconds: float) -> Recording:
    """The first sentences of one of `recordings`: those that end within so many seconds."""
    times = json.loads((SPEECH / f"{recording.name}.json").read_text())
    first = [each for each in times if each["end"] <= seconds]
    return replace(
        recording,
        name=f"{recording.name}-{seconds:g}",
        samples=recording.samples[: int(first[-1]["end"] * SAMPLE_RATE)],
        text=" ".join(each["sentence"] for each in first),
        sentences=recording.sentences[: len(first)],
    )


def half_an_hour() -> list[Recording]:
    """All of them clean, all of them noisy, and some as a telephone lets them through."""
    clean = recordings()
    through_telephone = [
        replace(each, name=f"{each.name}-telephone", samples=telephone(each.samples))
        for each in clean[:3]
    ]
    noisy = [
        replace(each, name=f"{each.name}-noise", samples=with_noise(each.samples, 20))
        for each in clean
    ]
    return [*clean, *noisy, *through_telephone]


def with_noise(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Adds noise of a room, louder in the lows; the voice is so many dB above it."""
    white = np.fft.rfft(np.random.default_rng(7).standard_normal(len(samples)))
    pink = np.fft.irfft(white / np.sqrt(np.maximum(np.arange(len(white)), 50)), len(samples))
    voice = samples / 32768
    loud = np.abs(voice) > 0.01
    scale = np.std(voice[loud]) / np.std(pink) / 10 ** (decibels / 20)
    return _as_integers(voice + scale * pink)


def telephone(samples: np.ndarray) -> np.ndarray:
    """What is left at 8 kHz."""
    spectrum = np.fft.rfft(samples / 32768)
    spectrum[int(len(spectrum) * TELEPHONE_RATE / SAMPLE_RATE) :] = 0
    return _as_integers(np.fft.irfft(spectrum, len(samples)))


def hum_and_tones(seconds: float) -> np.ndarray:
    """Chords that come and go, over a hum: no music, but nothing that anybody says."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = 0.02 * np.sin(2 * np.pi * 50 * time)
    for number, pitch in enumerate((220.0, 277.2, 329.6, 440.0, 554.4)):
        swell = np.maximum(0, np.sin(2 * np.pi * (time / 7 + number / 5)))
        sound += 0.06 * swell * np.sin(2 * np.pi * pitch * time)
    return _as_integers(sound)


def silence(seconds: float) -> np.ndarray:
    """As silent as a good microphone in an empty room."""
    noise = np.random.default_rng(8).standard_normal(int(seconds * SAMPLE_RATE))
    return _as_integers(noise / 3000)


def write_mp3(path: Path, samples: np.ndarray) -> Path:
    """Encodes at 32 kbit/s."""
    with av.open(str(path), "w", "mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = 32_000
        frame = av.AudioFrame.from_ndarray(samples[None], "s16p", "mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _as_integers(samples: np.ndarray) -> np.ndarray:
    integers: np.ndarray = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    return integers


_NORMALIZERS = {"en": EnglishTextNormalizer()}


def compare(said: Sequence[str], heard: Sequence[str], language: str = "en") -> jiwer.WordOutput:
    """Counts wrong words; spelling, numbers and marks do not count (Whisper's own normalizer)."""
    normal = _NORMALIZERS.get(language) or BasicTextNormalizer()
    return jiwer.process_words([normal(each) for each in said], [normal(each) for each in heard])
