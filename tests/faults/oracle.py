"""Inputs that carry their oracle: each sample tells which file it is from, and which place there.

A recording is made of blocks of four samples: a mark, the file's number, and the block's index in
two halves. So any slice, chunk, WAV or HLS segment names its origin, whatever has become of it. The
null model (`faults.null_worker`) says what it hears, and a hash of the very samples and options:
every transcript can be computed without asking the platform.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recordings import RATE, Samples

BLOCK = 4
"""Samples of one block."""
MARK = 0x57E0
"""First sample of each block: no silence, and nothing else by chance."""
CHUNK_BLOCKS = RATE // 50 // BLOCK
"""Blocks of one chunk of a live session: 20 ms."""
SPEECH_SECONDS = 15
"""Longest stretch of which the null engine makes one segment."""

_WORD = 1 << 15

_SPOKEN, _PERIOD = 3.008, 4.992
"""Seconds: somebody speaks for the first of every so many. Both are whole windows of the VAD."""


@dataclass(frozen=True)
class Run:
    """Blocks that follow one another as they were made. File 0 is silence."""

    file: int
    first: int
    count: int

    @property
    def end(self) -> int:
        """The block behind the last one."""
        return self.first + self.count


def samples_of(file: int, first: int, count: int) -> Samples:
    """Blocks of a file, as samples."""
    index = np.arange(first, first + count, dtype=np.int64)
    blocks = np.empty((count, BLOCK), np.int16)
    blocks[:, 0], blocks[:, 1] = MARK, file
    blocks[:, 2], blocks[:, 3] = index // _WORD, index % _WORD
    return blocks.ravel()


def runs_of(samples: NDArray[np.int16]) -> list[Run]:
    """Where samples come from, in their order. What is neither a block nor silence is file -1."""
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.int64)
    file = np.where(blocks[:, 0] == MARK, blocks[:, 1], np.where(blocks.any(axis=1), -1, 0))
    index = np.where(file > 0, blocks[:, 2] * _WORD + blocks[:, 3], 0)
    steps = np.where(file[1:] > 0, index[1:] - index[:-1] == 1, True)
    borders = np.flatnonzero((file[1:] != file[:-1]) | ~steps) + 1
    starts = [0, *borders.tolist()] if len(file) else []
    ends = [*starts[1:], len(file)]
    found = [
        Run(int(file[begin]), int(index[begin]), end - begin)
        for begin, end in zip(starts, ends, strict=True)
    ]
    if odd := len(samples) % BLOCK:
        found.append(Run(-1, 0, odd))
    return found


def blocks_in(seconds: float) -> int:
    """How many blocks sound so long."""
    return int(seconds * RATE) // BLOCK


def is_spoken(index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """In which blocks somebody speaks, for a listener who looks for utterances."""
    return np.asarray(index % blocks_in(_PERIOD) < blocks_in(_SPOKEN))


def seconds_in(blocks: int) -> float:
    """How long blocks sound."""
    return blocks * BLOCK / RATE


def _digest_of(samples: NDArray[np.int16], options: str) -> str:
    """What only these samples and these options give."""
    return hashlib.sha256(samples.astype("<i2").tobytes() + options.encode()).hexdigest()[:12]


def heard_in(samples: NDArray[np.int16], options: str) -> str:
    """What the null engine says of a stretch: its runs, and its digest."""
    runs = ",".join(f"{run.file}:{run.first}+{run.count}" for run in runs_of(samples))
    return f" {runs}#{_digest_of(samples, options)}"


_HEARD = re.compile(r"([0-9:+,-]+)#([0-9a-f]{12})")


def runs_in(text: str) -> list[Run]:
    """The runs that a transcript names, joined where they follow one another."""
    found = []
    for runs, _ in _HEARD.findall(text):
        for run in runs.split(","):
            file, first, count = re.split("[:+]", run)
            found.append(Run(int(file), int(first), int(count)))
    return joined(found)


def joined(runs: Iterable[Run]) -> list[Run]:
    """The same with as few runs as possible."""
    found: list[Run] = []
    for run in runs:
        last = found[-1] if found else None
        follows = last and last.file == run.file and (run.file <= 0 or run.first == last.end)
        if last and follows:
            found[-1] = Run(last.file, last.first, last.count + run.count)
        else:
            found.append(run)
    return found


def begins_with(whole: Sequence[Run], part: Sequence[Run]) -> bool:
    """Whether one is the other's beginning."""
    left = sum(run.count for run in part)
    beginning = []
    for run in whole:
        beginning.append(Run(run.file, run.first, min(run.count, left)))
        left -= beginning[-1].count
    return not left and joined(run for run in beginning if run.count) == joined(part)


def wrong_in(text: str, expected: Sequence[Run], options: str) -> str | None:
    """What is wrong with a transcript, or None.

    Args:
        text: of all segments.
        expected: where the samples of the recording come from, in their order.
        options: as the null engine has them.
    """
    heard = runs_in(text)
    if heard != joined(expected):
        return f"it tells of {heard} instead of {joined(expected)}"
    for runs, digest in _HEARD.findall(text):
        stretch = np.concatenate([_sound(run) for run in runs_in(f"{runs}#{digest}")])
        if _digest_of(stretch, options) != digest:
            return f"{runs}#{digest} is not what these samples give with the options {options!r}"
    return None


def _sound(run: Run) -> Samples:
    if run.file > 0:
        return samples_of(run.file, run.first, run.count)
    return np.zeros(run.count * BLOCK, np.int16)


def without(file: int, blocks: int, missing: Iterable[tuple[int, int]]) -> list[Run]:
    """A file in which stretches (first block, count) are silence instead."""
    runs, at = [], 0
    for first, count in sorted(missing):
        runs += [Run(file, at, first - at), Run(0, 0, count)]
        at = first + count
    return joined(run for run in [*runs, Run(file, at, blocks - at)] if run.count)


@dataclass
class Sound:
    """What somebody has recorded.

    Attributes:
        file: its number.
        blocks: its length.
        missing: stretches (first block, count) that are never sent.
    """

    file: int
    blocks: int
    missing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """What a recording of it holds."""
        return without(self.file, self.blocks, self.missing)

    @property
    def told(self) -> dict[str, Any]:
        """For the history."""
        return {"file": self.file, "blocks": self.blocks, "missing": self.missing}
