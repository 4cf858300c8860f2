"""What the service asks of an engine: audio in, segments out.

`ThreadedEngine` makes one of a model that runs in this process, such as `FasterWhisper`;
`RemoteEngine` is a server somewhere else. How to add another is in docs/how-to/add-an-engine.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from steno.transcript import Coverage, Options, Segment, Span
from steno.transcription.domain import Refusal, ServedModel

Samples = npt.NDArray[np.float32]
"""Mono audio at 16 kHz, -1 to 1."""


class Line(IntEnum):
    """Whose audio goes first, as long as no other waits for too long."""

    LIVE = 0
    RECOGNIZE = 1
    JOB = 2


class Recognition(Protocol):
    """One stretch of audio being recognised. Cancelling a call ends its work."""

    @property
    def audio_seconds(self) -> float:
        """Length of the audio."""

    @property
    def model_seconds(self) -> float:
        """Its share of the time that the model has worked."""

    @property
    def in_model(self) -> bool:
        """The model works on it just now."""

    @property
    def begun(self) -> bool:
        """The model works on it, or has: to stop it now would lose work."""

    async def detect_language(self, options: Options) -> str:
        """Code of the language that is spoken; empty where nothing is said or nothing tells.

        Args:
            options: those with which the segments will be asked for, but for the language.
        """

    def segments(self, options: Options) -> AsyncIterator[Segment]:
        """Yields segments as they are found; offsets are seconds from the start of the audio.

        The iterator can be left at any time. A segment whose times are unknown spans the audio.
        """

    async def cover(
        self, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        """Compares the speech in the audio with the segments that were found in it.

        An engine may look once more at speech that gave no text. Returns all segments in order, and
        where every sample of the span went.
        """


class Engine(Protocol):
    """Recognises any number of stretches of audio side by side.

    Its errors, beside those of the engine's own, are `InputRefused` and `NotReady` (`domain`).
    """

    @property
    def model(self) -> ServedModel:
        """The model that it serves."""

    @property
    def slices_at_once(self) -> int:
        """Slices of jobs that it can use at the same time."""

    @property
    def call_seconds(self) -> float:
        """How long the model has been working on its present call; 0 while it is idle."""

    @property
    def bounds_itself(self) -> bool:
        """No recognition takes for ever, and model time tells nothing of how long it may take.

        The worker stops no slice for its model time then. That of a server elsewhere has the wait
        for its turn there, which may be many times the length of a short slice.
        """

    def refusals(self, options: Options) -> list[Refusal]:
        """The options that it cannot honour."""

    def recognition(self, samples: Samples, line: Line, owner: str = "") -> Recognition:
        """Prepares to recognise a stretch of audio. Those of one owner, a job, share one turn."""

    async def ready(self) -> None:
        """Raises NotReady while nothing can be recognised for a reason outside this process."""

    async def check(self) -> None:
        """Raises any error if the model fails even on silence.

        It is asked after a slice has failed. A process whose check fails ends.
        """
