"""The spoken sentences that training draws from: made once, on disk, each with its times.

A folder holds for each part ``audio-N.i16`` (samples, one sentence after the other) and
``index-N.pickle`` (a list of groups; the sentences of a group have one speaker).
"""

from __future__ import annotations

import multiprocessing
import pickle
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .speech import Speaker, Word, random_speaker, speak
from .vocabulary import training_sentence

SENTENCES_OF_A_SPEAKER = 8
GROUPS_OF_A_PART = 500


@dataclass(frozen=True)
class Sentence:
    """Where a sentence lies in its part's audio file, and what is said when."""

    part: int
    offset: int
    length: int
    words: list[Word]
    phonemes: list[tuple[float, str]]


def make_part(folder: Path, part: int, seed: int) -> float:
    """Speaks one part of the corpus; a part that is there already is left. Returns seconds."""
    index_path = folder / f"index-{part}.pickle"
    if index_path.exists():
        return 0.0
    rng = random.Random(f"{seed}-{part}")
    groups: list[tuple[Speaker, list[Sentence]]] = []
    offset = 0
    with (folder / f"audio-{part}.i16").open("wb") as file:
        for _ in range(GROUPS_OF_A_PART):
            speaker = random_speaker(rng)
            sentences = []
            for _ in range(SENTENCES_OF_A_SPEAKER):
                said = speak(training_sentence(rng), speaker)
                file.write(said.audio.tobytes())
                sentences.append(Sentence(part, offset, len(said.audio), said.words, said.phonemes))
                offset += len(said.audio)
            groups.append((speaker, sentences))
    new = index_path.with_suffix(".new")
    new.write_bytes(pickle.dumps(groups))
    new.replace(index_path)
    return offset / 16_000


class Corpus:
    """All parts found in a folder, read from disk as they are needed."""

    def __init__(self, folder: Path) -> None:
        self.groups: list[tuple[Speaker, list[Sentence]]] = []
        self._audio: dict[int, npt.NDArray[np.int16]] = {}
        for index in sorted(folder.glob("index-*.pickle")):
            part = int(index.stem.split("-")[1])
            self.groups += pickle.loads(index.read_bytes())
            self._audio[part] = np.memmap(folder / f"audio-{part}.i16", np.int16, "r")

    def audio(self, sentence: Sentence) -> npt.NDArray[np.int16]:
        """The samples of a sentence."""
        return self._audio[sentence.part][sentence.offset : sentence.offset + sentence.length]


def make(folder: Path, parts: range, seed: int, processes: int) -> None:
    """Makes the parts of the corpus that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, part, seed) for part in parts]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        seconds = sum(pool.starmap(make_part, jobs, chunksize=1))
    print(f"{seconds / 3600:.1f} hours of speech made")
