"""Speech from espeak-ng with the time of each word and phoneme, straight from its library.

The library is called through ctypes because only there it tells when each word begins; a process
for each sentence would also be ten times slower.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from .vocabulary import ACCENTS

SAMPLE_RATE = 16_000
FRAME = 320
"""Samples of one encoder frame: 20 ms."""

VARIANTS = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt",
    "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "croak", "whisper", "whisperf", "Alex",
    "Alicia", "Andrea", "Andy", "Annie", "AnxiousAndy", "Demonic", "Denis", "Diogo", "Gene",
    "Gene2", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Mr serious",
    "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "Storm", "Tweaky", "UniRobot", "adam",
    "anika", "anikaRobot", "announcer", "antonio", "aunty", "belinda", "benjamin", "boris",
    "caleb", "david", "ed", "edward", "edward2", "fast", "grandma", "grandpa", "gustave", "iven",
    "iven2", "iven3", "iven4", "john", "kaukovalta", "linda", "marcelo", "max", "michel", "miguel",
    "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "robosoft", "robosoft2",
    "robosoft3", "robosoft4", "robosoft5", "robosoft6", "robosoft7", "robosoft8", "sandro",
    "shelby", "steph", "steph2", "steph3", "travis", "victor", "zac",
)  # fmt: skip
"""The voice variants of espeak-ng 1.51."""

HELD_OUT_VARIANTS = ("m5", "f4", "Andy", "linda", "john", "steph2", "quincy", "klatt3", "paul")
"""Voices that training never hears."""

HELD_OUT_RATES = (118, 119, 120, 121, 149, 150, 151, 178, 179, 180, 181, 205, 206, 207)
"""Words a minute that training never hears."""


@dataclass(frozen=True)
class Speaker:
    """One voice: accent, variant and the settings that espeak-ng offers."""

    accent: str
    variant: str
    rate: int
    pitch: int = 50
    pitch_range: int = 50
    word_gap: int = 0

    @property
    def voice(self) -> str:
        """The name that espeak-ng gives to this voice."""
        return f"{self.accent}+{self.variant}" if self.variant else self.accent


@dataclass(frozen=True)
class Word:
    """A spoken word; start and end are seconds from the beginning of its audio."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """One sentence as audio (16 kHz, int16), its words in order and its phonemes in seconds."""

    audio: npt.NDArray[np.int16]
    words: list[Word]
    phonemes: list[tuple[float, str]]


def random_speaker(rng: random.Random, *, held_out: bool = False) -> Speaker:
    """A voice for training, or one of those that training never hears."""
    if held_out:
        variant = rng.choice(HELD_OUT_VARIANTS)
        rate = rng.choice(HELD_OUT_RATES)
    else:
        plain = [v for v in VARIANTS[:14] if v not in HELD_OUT_VARIANTS]
        other = [v for v in VARIANTS if v not in HELD_OUT_VARIANTS]
        variant = rng.choice(plain if rng.random() < 0.3 else other)
        rate = rng.choice([r for r in range(98, 223) if r not in HELD_OUT_RATES])
    return Speaker(
        accent=rng.choice(ACCENTS),
        variant=variant,
        rate=rate,
        pitch=rng.choice((50, rng.randint(20, 80))),
        pitch_range=rng.choice((50, rng.randint(20, 80))),
        word_gap=rng.choice((0, 0, 0, rng.randint(0, 8))),
    )


class _Id(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_LIST_TERMINATED, _WORD, _PHONEME = 0, 1, 7
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_UTF8, _POSITION_IN_CHARACTERS = 1, 1
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7


class _Espeak:
    """The library, which is one a process and holds one voice at a time."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        self._library = ctypes.CDLL(name)
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 200, None, _PHONEME_EVENTS)
        if rate != 22050:
            raise RuntimeError(f"espeak-ng speaks at {rate} samples a second, not 22050")
        self._samples: list[npt.NDArray[np.int16]] = []
        self._events: list[tuple[int, int, int, str]] = []
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._speaker: Speaker | None = None

    def _receive(self, wave, count, events) -> int:  # type: ignore[no-untyped-def]
        if wave and count > 0:
            self._samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _LIST_TERMINATED:
            event = events[index]
            if event.type in (_WORD, _PHONEME):
                sound = event.id.string.decode("utf-8", "replace") if event.type == 7 else ""
                self._events.append((event.type, event.text_position, event.audio_position, sound))
            index += 1
        return 0

    def say(
        self, text: str, speaker: Speaker
    ) -> tuple[npt.NDArray[np.int16], list[tuple[int, int, int, str]]]:
        """Samples at 22,050 Hz and events (type, place in the text, milliseconds, phoneme)."""
        if speaker != self._speaker:
            if self._library.espeak_SetVoiceByName(speaker.voice.encode()) != 0:
                raise ValueError(f"espeak-ng has no voice {speaker.voice}")
            for parameter, value in (
                (_RATE, speaker.rate),
                (_PITCH, speaker.pitch),
                (_RANGE, speaker.pitch_range),
                (_WORD_GAP, speaker.word_gap),
            ):
                self._library.espeak_SetParameter(parameter, value, 0)
            self._speaker = speaker
        self._samples, self._events = [], []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(
            data, len(data), 0, _POSITION_IN_CHARACTERS, 0, _UTF8, None, None
        )
        audio = np.concatenate(self._samples) if self._samples else np.zeros(0, np.int16)
        return audio, self._events


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def speak(text: str, speaker: Speaker) -> Utterance:
    """Says one sentence. The audio ends 30 ms after the last sound."""
    raw, events = _espeak().say(text.lower(), speaker)
    words, ends = _words(text, events)
    audio = _to_16k(raw)
    stop = min(len(audio), int((ends + 0.03) * SAMPLE_RATE))
    sounds = [(ms / 1000, name) for kind, _, ms, name in events if kind == _PHONEME]
    return Utterance(audio[:stop], words, sounds)


def _words(text: str, events: Sequence[tuple[int, int, int, str]]) -> tuple[list[Word], float]:
    """Word times. espeak-ng says some pairs (as "of the") as one: they share its time evenly."""
    starts_in_text = [0] + [i + 1 for i, char in enumerate(text) if char == " "]
    index_of = {place: index for index, place in enumerate(starts_in_text)}
    begins: dict[int, float] = {}
    sound_end: dict[int, float] = {}
    current, last_sound = -1, 0.0
    silent = True
    for kind, place, ms, name in events:
        if kind == _WORD:
            if current >= 0 and not silent:
                sound_end[current] = ms / 1000
            index = index_of.get(place - 1)
            if index is not None:
                current, silent = index, False
                begins.setdefault(index, ms / 1000)
        elif kind == _PHONEME:
            last_sound = max(last_sound, ms / 1000)
            if (not name or name.startswith("_")) and current >= 0 and not silent:
                sound_end[current] = ms / 1000
                silent = True
    texts = text.split(" ")
    known = sorted(begins)
    words = []
    for position, index in enumerate(known):
        after = known[position + 1] if position + 1 < len(known) else len(texts)
        limit = begins[known[position + 1]] if position + 1 < len(known) else last_sound
        end = min(max(sound_end.get(index, limit), begins[index] + 0.02), max(limit, 0.0))
        end = max(end, begins[index] + 0.02)
        share = (end - begins[index]) / (after - index)
        words += [
            Word(texts[i], begins[index] + share * n, begins[index] + share * (n + 1))
            for n, i in enumerate(range(index, after))
        ]
    if not words or known[0] != 0:
        raise ValueError(f"espeak-ng gave no time for the first word of {text!r}")
    return words, words[-1].end


def _to_16k(audio: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """22,050 to 16,000 samples a second, by the spectrum: 441 samples become 320."""
    blocks = -(-len(audio) // 441) + 4
    padded = np.zeros(blocks * 441, np.float32)
    padded[: len(audio)] = audio
    spectrum = np.fft.rfft(padded)[: blocks * 160 + 1]
    out = np.fft.irfft(spectrum, blocks * 320) * (320 / 441)
    return np.clip(np.rint(out), -32768, 32767).astype(np.int16)
