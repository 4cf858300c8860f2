"""Training windows: sentences put together, made worse, and what the model shall say to them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from .corpus import Corpus, Sentence
from .speech import FRAME, SAMPLE_RATE
from .tokenizer import Ids

Audio = npt.NDArray[np.float32]
IGNORED = -100
SAID_AGAIN = 0.3
"""Share of the sentences that were said a moment ago: places with the same words are mixed up."""


@dataclass
class Placed:
    """A word on the window's clock."""

    text: str
    start: float
    end: float
    pause: float
    """Seconds of silence after it."""


@dataclass
class Window:
    """One training example."""

    audio: Audio
    seconds: float
    """Of audio; the features of the rest of the window are zero, as faster-whisper pads them."""
    tokens: list[int]
    labels: list[int]
    looks: list[tuple[float, float]]
    """For each label the seconds at which it is heard; (0, 0) where there are none."""
    words: npt.NDArray[np.int64]
    """The word of each frame, and in a second row the word before it; 0 is none."""
    phonemes: npt.NDArray[np.int64]
    place: int = 0
    loudest: float = 0.0
    """How much louder the loudest part of the whole recording is, in the log-mel's unit."""


@dataclass
class Stream:
    """Sentences on one clock, before the window is cut out of it."""

    audio: Audio
    sentences: list[list[Placed]] = field(default_factory=list)
    phonemes: list[tuple[float, str]] = field(default_factory=list)


class Composer:
    """Makes windows of the corpus."""

    def __init__(self, corpus: Corpus, ids: Ids, phonemes: dict[str, int]) -> None:
        self._corpus = corpus
        self._ids = ids
        self._phonemes = phonemes

    def window(self, rng: random.Random, seconds: int, *, anywhere: bool, prompts: bool) -> Window:
        """A window of a whole number of seconds.

        anywhere: it lies somewhere in the 30 s instead of at their beginning.
        prompts: some have the text before as a prompt, as when a long recording is transcribed.
        """
        length = seconds * SAMPLE_RATE
        place = rng.randint(0, 1500 - seconds * 50) if anywhere else 0
        if rng.random() < 0.05:
            return self._silent(rng, length, place, prompts)
        stream = self._stream(rng, seconds)
        cut = 0
        if rng.random() < 0.2:
            cut = rng.randint(0, min(len(stream.audio) // 2, 8 * SAMPLE_RATE)) // FRAME * FRAME
        audio = stream.audio[cut : cut + length]
        goes_on = len(stream.audio) > cut + length
        shift = cut / SAMPLE_RATE
        audible = len(audio) / SAMPLE_RATE
        if not goes_on and rng.random() < 0.5:  # a silent end that belongs to the recording
            tail = rng.choice((rng.uniform(0, 1), rng.uniform(0, seconds)))
            audio = np.pad(audio, (0, min(int(tail * SAMPLE_RATE), length - len(audio))))
        sentences = [
            [Placed(w.text, w.start - shift, w.end - shift, w.pause) for w in sentence]
            for sentence in stream.sentences
        ]
        tokens, labels, looks = self._targets(rng, sentences, audible, place, prompts)
        frames = seconds * 50
        words = np.zeros((2, frames), np.int64)
        before = 0
        for word in (word for sentence in sentences for word in sentence):
            name = word.text.rstrip(",.")
            first, last = int(max(0.0, word.start) * 50 + 0.5), int(word.end * 50 + 0.5)
            number = self._ids.class_of[self._ids.word[name]] + 1
            if last > 0:
                words[0, first:last] = number
                words[1, first:last] = before
                before = number
        sounds = np.zeros(frames, np.int64)
        for (begin, name), (end, _) in zip(
            stream.phonemes, [*stream.phonemes[1:], (1e9, "")], strict=True
        ):
            first = int(max(0.0, begin - shift) * 50 + 0.5)
            last = int(min(end - shift, begin - shift + 2) * 50 + 0.5)
            if last > 0:
                sounds[first:last] = self._phonemes.get(name, 0)
        seconds_heard = len(audio) / SAMPLE_RATE
        heard = int(audible * 50)
        words[:, heard:] = 0
        sounds[heard:] = 0
        loudest = rng.uniform(0, 1.0) if rng.random() < 0.3 else 0.0
        audio = degrade(rng, audio)
        full = np.zeros(length, np.float32)
        full[: len(audio)] = audio
        return Window(full, seconds_heard, tokens, labels, looks, words, sounds, place, loudest)

    def _stream(self, rng: random.Random, seconds: int) -> Stream:
        """Sentences with pauses; mostly more than the window holds."""
        fill = seconds + 6 if rng.random() < 0.6 else rng.uniform(0.15, 1.0) * seconds
        fill = max(fill, 1.0)
        pieces: list[Audio] = []
        stream = Stream(np.zeros(0, np.float32))
        clock = 0

        def pause(length: float) -> None:
            nonlocal clock
            pieces.append(np.zeros(int(length * SAMPLE_RATE), np.float32))
            clock += len(pieces[-1])

        style = rng.choice((0.25, 0.4, 0.7, 1.2))
        pause(rng.choice((0.0, rng.uniform(0, 0.4), rng.uniform(0, 0.5), rng.uniform(0, 2.5))))
        group: list[Sentence] = []
        told: list[Sentence] = []
        while not stream.sentences or clock / SAMPLE_RATE < fill:
            if not group:
                group = list(rng.choice(self._corpus.groups)[1])
                rng.shuffle(group)
            again = bool(told) and rng.random() < SAID_AGAIN
            sentence = rng.choice(told[-4:]) if again else group.pop()
            told.append(sentence)
            audio = self._corpus.audio(sentence).astype(np.float32) / np.float32(32768)
            begin = clock / SAMPLE_RATE
            pieces.append(audio)
            clock += len(audio)
            words = []
            for position, word in enumerate(sentence.words):
                after = sentence.words[position + 1 : position + 2]
                gap = after[0].start - word.end if after else 0.0
                words.append(Placed(word.text, begin + word.start, begin + word.end, gap))
            stream.phonemes += [(begin + at, name) for at, name in sentence.phonemes]
            gap = rng.uniform(0.15, style)
            if rng.random() < 0.08:
                gap = rng.uniform(0.5, max(1.0, min(8.0, seconds / 2)))
            words[-1].pause = gap
            stream.sentences.append(words)
            pause(gap)
        if rng.random() < 0.5 and fill < seconds:
            pieces.pop()
        stream.audio = np.concatenate(pieces)
        return stream

    def _text(self, words: list[Placed]) -> tuple[list[int], list[tuple[float, float]]]:
        """Tokens of words, and when each is heard; a comma or stop is heard in the pause."""
        tokens: list[int] = []
        looks = []
        for word in words:
            name = word.text.rstrip(",.")
            tokens.append(self._ids.word[name])
            looks.append((word.start, word.end))
            if word.text != name:
                tokens.append(self._ids.comma if word.text.endswith(",") else self._ids.stop)
                looks.append((word.end, word.end + max(0.06, min(word.pause, 0.3))))
        return tokens, looks

    def _targets(
        self,
        rng: random.Random,
        sentences: list[list[Placed]],
        audible: float,
        place: int,
        prompts: bool,
    ) -> tuple[list[int], list[int], list[tuple[float, float]]]:
        """Prompt and transcript, the labels, and where in the audio each label is heard."""
        ids = self._ids
        prompt = self._prompt(rng) if prompts and rng.random() < 0.55 else []
        timed = rng.random() < 0.7
        shift = place / 50
        tokens: list[int] = []
        looks: list[tuple[float, float]] = []

        def time(at: float) -> None:
            tokens.append(ids.time_zero + min(1500, max(0, round((at + shift) * 50))))
            looks.append((max(0.0, at - 0.06), at + 0.06))

        first = True
        for sentence in sentences:
            inside = [w for w in sentence if w.start > -0.03 and w.end < audible + 0.03]
            cut_off = sentence[-1].end >= audible + 0.03
            if sentence[-1].end < 0.05 or sentence[0].start > audible - 0.04:
                continue
            if timed and cut_off and not first:
                time(sentence[0].start)  # it begins here; the next window will tell it
                break
            if not inside:
                continue
            begin = max(0.0, inside[0].start if sentence[0].start > -0.03 else 0.0)
            if timed:
                time(min(begin, 1.0) if first and not place else begin)
            text, heard = self._text(inside)
            tokens += text
            looks += heard
            if timed and not cut_off:
                time(inside[-1].end)
            first = False
            if cut_off:
                break
        if timed and first:
            time(0.0)
        end = sentences[-1][-1].end if sentences else 0.0
        end = min(end, audible - 0.1)
        start = [ids.start] if timed else [ids.start, ids.no_timestamps]
        whole = [*prompt, *start, *tokens]
        labels = [IGNORED] * (len(whole) - len(tokens) - 1) + [*tokens, ids.end]
        if first:  # nothing is said
            labels[len(prompt)] = ids.no_speech
        seen = [(0.0, 0.0)] * (len(whole) - len(tokens) - 1) + [*looks, (end, end + 0.4)]
        return whole[:448], labels[:448], seen[:448]

    def _prompt(self, rng: random.Random) -> list[int]:
        """The text before, with or without times, or words that have nothing to do with it."""
        ids = self._ids
        tokens: list[int] = []
        clock = rng.uniform(0, 20)
        timed = rng.random() < 0.7
        group: list[Sentence] = []
        for _ in range(rng.choice((rng.randint(1, 8), rng.randint(8, 25)))):
            group = group or list(rng.choice(self._corpus.groups)[1])
            sentence = group.pop()
            text, _ = self._text([Placed(w.text, 0, 0, 0) for w in sentence.words])
            if clock > 25:  # the next window began
                clock = 0.0
            end = min(30.0, clock + sentence.length / SAMPLE_RATE)
            if timed:
                text = [ids.time_zero + round(clock * 50), *text, ids.time_zero + round(end * 50)]
            tokens += text
            clock = min(29.9, end + 0.3)
        return [ids.previous, *tokens[-223:]]

    def _silent(self, rng: random.Random, length: int, place: int, prompts: bool) -> Window:
        """No speech: silence, noise or tones. The model says so, and ends."""
        audio = np.zeros(length, np.float32)
        kind = rng.random()
        if kind < 0.35:
            audio = audio + noise(rng, length) * rng.choice((0.001, 0.01, 0.05, 0.2))
        elif kind < 0.8:
            audio = tones(rng, length) * rng.uniform(0.02, 0.5)
            audio = audio + noise(rng, length) * rng.choice((0.0, 0.001, 0.01))
        heard = length if rng.random() < 0.7 else rng.randint(SAMPLE_RATE // 2, length)
        audio[heard:] = 0
        tokens, labels, looks = self._targets(rng, [], heard / SAMPLE_RATE, place, prompts)
        nothing = np.zeros((2, length // FRAME), np.int64)
        return Window(
            audio.astype(np.float32), heard / SAMPLE_RATE, tokens, labels, looks, nothing,
            nothing[0], place, rng.choice((0.0, 0.0, 1.0, 3.0)),
        )  # fmt: skip


@cache
def _noises(seed: int) -> list[Audio]:
    """A minute each of white, pink and brown noise, and of two bands, at a level of one."""
    generator = np.random.default_rng(seed)
    length = 60 * SAMPLE_RATE
    rate = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20)
    shapes = [
        np.ones_like(rate), rate**-0.5, rate**-1.0, np.where(rate < 1000, 1.0, 0.03),
        np.where((rate > 300) & (rate < 3000), 1.0, 0.1),
    ]  # fmt: skip
    noises = []
    for shape in shapes:
        white = np.fft.rfft(generator.standard_normal(length))
        sound = np.fft.irfft(white * shape, length)
        noises.append((sound / sound.std()).astype(np.float32))
    return noises


def noise(rng: random.Random, length: int, seed: int = 11) -> Audio:
    """Noise of some colour, at a level (RMS) of one, cut from minutes that have this seed."""
    source = rng.choice(_noises(seed))
    begin = rng.randint(0, len(source) - length)
    return source[begin : begin + length].copy()


def tones(rng: random.Random, length: int) -> Audio:
    """Notes that begin and fade, as of simple music; or a steady hum or beep."""
    out = np.zeros(length, np.float32)
    if rng.random() < 0.25:
        time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
        pitch = rng.choice((50, 60, 440, 1000, rng.uniform(80, 3000)))
        return np.sin(2 * np.pi * pitch * time).astype(np.float32)
    beat = rng.uniform(0.12, 0.9)
    scale = [220 * 2 ** (n / 12) for n in (-12, -5, 0, 2, 4, 5, 7, 9, 12, 16, 19, 24)]
    at = rng.uniform(0, 0.5)
    while at < length / SAMPLE_RATE:
        for _ in range(rng.choice((1, 1, 2, 3))):
            begin = int(at * SAMPLE_RATE)
            count = min(int(rng.uniform(0.5, 2.5) * beat * SAMPLE_RATE), length - begin)
            time = np.arange(count, dtype=np.float32) / SAMPLE_RATE
            pitch = rng.choice(scale)
            note = np.zeros(count, np.float32)
            for harmonic in range(1, rng.randint(2, 6)):
                note += np.sin(2 * np.pi * pitch * harmonic * time) / harmonic**1.5
            note *= np.exp(-time * rng.uniform(0.5, 8)) * np.minimum(time * 100, 1)
            out[begin : begin + count] += note
        at += beat * rng.choice((0.5, 1, 1, 1, 2))
    return (out / max(1e-3, float(np.abs(out).max()))).astype(np.float32)


def degrade(rng: random.Random, audio: Audio) -> Audio:
    """What recordings suffer: level, noise, clipping, a telephone's band."""
    peak = float(np.abs(audio).max()) if len(audio) else 0.0
    if peak < 1e-4:
        return audio
    audio = audio * (rng.choice((0.9, rng.uniform(0.03, 1.0))) / peak)
    if rng.random() < 0.27:
        return audio
    if rng.random() < 0.2:
        points = rng.randint(2, 8)
        curve = [rng.uniform(0.15, 1.0) for _ in range(points)]
        audio = audio * np.interp(
            np.linspace(0, points - 1, len(audio)), np.arange(points), curve
        ).astype(np.float32)
    if rng.random() < 0.12:
        audio = np.clip(audio, -1, 1) * (rng.uniform(1.5, 8) / max(1e-3, np.abs(audio).max()))
        audio = np.clip(audio, -1, 1)
    if rng.random() < 0.7:
        spoken = audio[np.abs(audio) > 1e-3 * max(1e-3, float(np.abs(audio).max()))]
        level = float(np.sqrt(np.mean(spoken**2))) if len(spoken) else 0.01
        decibels = rng.choice((rng.uniform(10, 25), rng.uniform(12, 22), rng.uniform(15, 45)))
        audio = audio + noise(rng, len(audio)) * (level * 10 ** (-decibels / 20))
    if rng.random() < 0.18:
        audio = telephone(audio, rng.uniform(150, 350), rng.uniform(3200, 3900))
    return np.clip(audio, -1, 1).astype(np.float32)


def telephone(audio: Audio, low: float = 300, high: float = 3400) -> Audio:
    """Only what a telephone lets through."""
    size = -(-len(audio) // SAMPLE_RATE) * SAMPLE_RATE
    spectrum = np.fft.rfft(audio, size)
    rate = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum *= 1 / (1 + np.exp(-(rate - low) / 30)) / (1 + np.exp((rate - high) / 50))
    return np.fft.irfft(spectrum, size)[: len(audio)].astype(np.float32)


@cache
def _mel_filters() -> torch.Tensor:
    from faster_whisper.feature_extractor import FeatureExtractor

    return torch.from_numpy(FeatureExtractor().mel_filters.astype(np.float32))


def log_mel(windows: list[Window]) -> torch.Tensor:
    """Features as faster-whisper makes them: (batch, 80, frames)."""
    audio = torch.from_numpy(np.stack([w.audio for w in windows]))
    hann = torch.hann_window(400)
    power = torch.stft(audio, 400, 160, window=hann, return_complex=True)[..., :-1].abs() ** 2
    mel = (_mel_filters() @ power).clamp(min=1e-10).log10()
    top = mel.amax((1, 2)) + torch.tensor([w.loudest for w in windows])
    mel = torch.maximum(mel, top[:, None, None] - 8.0)
    mel = (mel + 4.0) / 4.0
    for row, window in enumerate(windows):
        mel[row, :, int(window.seconds * 100 + 1) :] = 0.0
    return mel


@dataclass
class Batch:
    """Windows as tensors."""

    mel: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor
    looks: torch.Tensor
    """(batch, label, 2): first frame and the one after the last; -1 where there is none."""
    words: torch.Tensor
    phonemes: torch.Tensor
    places: torch.Tensor
    memory: torch.Tensor | None = None
    """What the encoder makes of it, once that does not change any more."""


def batch(windows: list[Window], pad: int) -> Batch:
    """Puts windows of one length together."""
    longest = max(len(w.tokens) for w in windows)
    longest = -(-longest // 16) * 16
    tokens = torch.full((len(windows), longest), pad)
    labels = torch.full((len(windows), longest), IGNORED)
    looks = torch.full((len(windows), longest, 2), -1)
    for row, window in enumerate(windows):
        tokens[row, : len(window.tokens)] = torch.tensor(window.tokens)
        labels[row, : len(window.labels)] = torch.tensor(window.labels)
        frames = len(window.phonemes)
        for column, (begin, end) in enumerate(window.looks):
            if end > begin and begin * 50 < frames - 1:
                first = max(0, int(begin * 50 + 0.5))
                looks[row, column, 0] = first
                looks[row, column, 1] = min(frames, max(first + 1, int(end * 50 + 0.5)))
    return Batch(
        log_mel(windows),
        tokens,
        labels,
        looks,
        torch.from_numpy(np.stack([w.words for w in windows])),
        torch.from_numpy(np.stack([w.phonemes for w in windows])),
        torch.tensor([w.place for w in windows]),
    )
