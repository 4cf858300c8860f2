"""`python -m faults.null_listener`: concatenation, whose VAD asks the oracle where speech is."""

from __future__ import annotations

import runpy

import numpy as np
from numpy.typing import NDArray

from faults.oracle import BLOCK, MARK, is_spoken, runs_of
from recordings import Samples
from steno import audio
from steno.audio.pcm import from_float
from steno.audio.vad import CONTEXT_SAMPLES

Floats = NDArray[np.float32]


class NullVad:
    """In the place of `steno.audio.VadModel`."""

    def run(self, windows: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        """Returns probabilities of shape (n,), all 0 or 1, and the state as it was."""
        heard = [_speaks(from_float(window)) for window in windows[:, CONTEXT_SAMPLES:]]
        return np.array(heard, np.float32), h, c


def _speaks(window: Samples) -> bool:
    marks = [np.count_nonzero(window[phase::BLOCK] == MARK) for phase in range(BLOCK)]
    runs = runs_of(window[int(np.argmax(marks)) :])
    first = [run.first for run in runs if run.file > 0][:1]
    return bool(is_spoken(np.array(first, np.int64)).any())


if __name__ == "__main__":
    audio.VadModel = NullVad  # type: ignore[assignment,misc]
    runpy.run_module("steno.concatenation", run_name="__main__", alter_sys=True)
