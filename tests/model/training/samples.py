"""Makes the recordings in examples/audio and those of the tests."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import recordings
from .recordings import Recording, encode, read_aloud, save_truth
from .scoring import plain
from .speech import HELD_OUT_VARIANTS, SAMPLE_RATE, Speaker
from .vocabulary import ACCENTS, WORDS, sentence

STORY = """
It was a cold night in November. The wind was strong, and the snow fell on the quiet village.
In the old station, a young woman waited alone, with a red bag and a small lamp. The clock stopped
at seven. She listened, but there was only the wind.

Then, at the door, she saw a little white dog. It was very cold, and very hungry. Hello, little
friend. We are lost, you and I. She opened the bag, and gave the dog bread, and warm milk from a
green bottle. The dog looked up, then it turned, and ran into the dark.

The woman took the lamp and followed. They walked under the bridge, behind the market, and on into
the forest. The dog stopped at a blue door. Behind the door was a warm kitchen, with a bright fire
and a long table. Near the fire slept a very old man. It was the captain of the golden ship.

Who is there, asked the captain. It is only your dog, and a woman with a lamp. The captain laughed.
Every winter this dog must find one lost friend, and bring that friend home. Yesterday it was a
baker, with a heavy box of sugar. Today it is you. Please, take a chair. The coffee is hot.

The woman smiled. In the red bag was a picture, and in the picture was a ship. The old captain
looked at the picture, and remembered. That was my ship. We were eighty seven people, two hundred
fish, one horse and a black cat. From May until September, every night was bright. Then, on a
Thursday in October, the wind turned, and my ship was lost. I asked every sailor in the harbour,
but not one remembered where.

The woman gave the captain a letter. My mother kept this, because my father was your friend. The
message was short. North sixty two, east fifteen. Juliet, Oscar, yankee. The captain laughed again,
then he was very quiet.

In the morning, the snow stopped. They walked down into the harbour, the woman, the captain and the
dog. A small boat was ready. The captain started the engine, and the dog watched the water. On
Friday they saw the mountain. On Saturday they found the island. On Sunday, under a heavy black
stone, they found the golden bell of the ship.

They carried it home, and the people of the village came with music. The bell is in the church
today. When the night is dark, and the wind is strong, stop and listen. If the bell is with you, you
are never alone. Walk on. Home is near.
"""

NUMBERS = "Zero, one, two, three. Twenty four, ninety nine, six hundred and thirty. Seven thousand."
SPELLING = "Please record this. Sierra, tango, echo, November, Oscar. Thank you."
WEEK = (
    "On Monday it was warm. On Tuesday we had rain. Wednesday was bright, and on Thursday the snow "
    "came."
)
BEFORE_SILENCE = "The door is open. Please wait, and listen."
AFTER_SILENCE = "Thank you. The music stopped, and the answer is yes."


def sentences_of(text: str) -> list[tuple[str, bool]]:
    """Sentences, each with whether a paragraph ends after it; every word must be known."""
    found = []
    for paragraph in text.strip().split("\n\n"):
        parts = [part.strip() + "." for part in " ".join(paragraph.split()).split(".") if part]
        found += [(part, part is parts[-1]) for part in parts]
    known = {word.lower() for word in WORDS}
    unknown = sorted({word for part, _ in found for word in plain(part)} - known)
    if unknown:
        raise ValueError(f"not in the vocabulary: {unknown}")
    return found


def told(text: str, speaker: Speaker, pause: float = 0.5) -> Recording:
    """A text read by one speaker."""
    return read_aloud(
        (part, speaker, 2 * pause if last else pause) for part, last in sentences_of(text)
    )


def examples(folder: Path) -> None:
    """The recordings of examples/audio, each with its text."""
    made = {
        "demo.opus": told(STORY, Speaker("en", "f2", 148, pitch_range=60)),
        "numbers.flac": told(NUMBERS, Speaker("en-us", "m3", 150)),
        "spelling.wav": told(SPELLING, Speaker("en-gb-x-rp", "m1", 140)),
        "week.ogg": told(WEEK, Speaker("en-gb-scotland", "f3", 155)),
        "long-silence.flac": _around_silence(90),
        "telephone.mp3": recordings.by_telephone(told(SPELLING, Speaker("en-us", "f5", 160))),
        "ten-minutes.opus": ten_minutes(),
    }
    for name, recording in made.items():
        encode(recording.audio, folder / name, bit_rate=16_000 if "ten" in name else 24_000)
        lines = [" ".join(word.text for word in part) for part in recording.sentences]
        (folder / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")


def _around_silence(seconds: float) -> Recording:
    speaker = Speaker("en-us", "f1", 150)
    before, after = sentences_of(BEFORE_SILENCE), sentences_of(AFTER_SILENCE)
    pauses = [0.5] * (len(before) - 1) + [seconds] + [0.5] * len(after)
    return read_aloud(
        (part, speaker, pause) for (part, _), pause in zip([*before, *after], pauses, strict=True)
    )


def ten_minutes() -> Recording:
    """Several speakers by turns, with pauses, for ten minutes."""
    rng = random.Random(10)
    lines: list[tuple[str, Speaker, float]] = []
    seconds = 0.3
    while True:
        speaker = Speaker(rng.choice(ACCENTS), rng.choice(("m1", "m3", "f2", "f4")), 150)
        for _ in range(rng.randint(4, 9)):
            line = (sentence(rng), speaker, rng.uniform(0.3, 1.2))
            seconds += read_aloud([line], lead=0).seconds
            lines.append(line)
            if seconds > 598:
                whole = read_aloud(lines)
                end = np.zeros(max(0, 600 * SAMPLE_RATE - len(whole.audio)), np.float32)
                return replace(whole, audio=np.concatenate([whole.audio, end]))


def test_data(folder: Path) -> None:
    """The small fixed part of the evaluation that runs with the tests: every held-out voice."""
    rng = random.Random(2026)
    parts = [recordings.held_out(rng, 36, variant=variant) for variant in HELD_OUT_VARIANTS]
    clean = _joined(parts)
    levels = np.linspace(25, 15, len(parts))
    noisy = _joined(
        [recordings.noisy(rng, part, level) for part, level in zip(parts, levels, strict=True)]
    )
    for name, recording in (("clean", clean), ("noisy", noisy)):
        encode(recording.audio, folder / f"{name}.opus", bit_rate=24_000)
        save_truth(recording, folder / f"{name}.json")


def _joined(parts: list[Recording]) -> Recording:
    audio = np.zeros(0, np.float32)
    sentences = []
    for part in parts:
        shift = len(audio) / SAMPLE_RATE
        sentences += [
            [replace(word, start=word.start + shift, end=word.end + shift) for word in words]
            for words in part.sentences
        ]
        audio = np.concatenate([audio, part.audio])
    return Recording(audio, sentences)
