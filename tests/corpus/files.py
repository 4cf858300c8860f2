"""The files that strangers send, each with the answer that it must get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from corpus.answers import Answer


@dataclass(frozen=True)
class File:
    """A file to upload.

    Attributes:
        name: one sentence that says what is wrong with it.
        content: makes its bytes; whatever is drawn by chance is drawn from the argument.
        answer: what must become of it.
        filename: how it calls itself.
    """

    name: str
    content: Callable[[random.Random], bytes]
    answer: Answer
    filename: str = "recording.wav"

    def read(self) -> bytes:
        """Its bytes: the same each time, on each machine with the same libav."""
        return self.content(random.Random(self.name))


def constant(content: bytes) -> Callable[[random.Random], bytes]:
    """Bytes in which nothing is drawn by chance."""
    return lambda _: content
