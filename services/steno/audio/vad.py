"""Where there is speech: Silero VAD over a stream, one probability for each 32 ms.

The model lies beside this file, with its license (version 6, MIT); `tools/vad_model.py` takes it
from faster-whisper's wheel. Inputs, context and state are those of `faster_whisper/vad.py`, after
github.com/snakers4/silero-vad: each window of 512 samples is preceded by the last 64 samples of the
one before (zeros at the start), and the recurrent state (h, c), each of shape (1, 1, 128), is
carried from run to run.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steno.audio.pcm import to_float

# Else it keeps a device's id and a database of events at home, and sends them to its makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime  # it reads that when it is loaded

WINDOW_SAMPLES = 512
"""Samples that one probability speaks for: 32 ms."""

CONTEXT_SAMPLES = 64
STATE_SHAPE = (1, 1, 128)

RUN_WINDOWS = 32
"""Windows in one run of the model. Always the same number, because the last bits of a probability
depend on it, and cuts must not depend on how a recording happened to be fed."""

SPEECH_THRESHOLD = 0.5
"""Probability from which a window is speech."""

SILENCE_THRESHOLD = 0.35
"""Probability under which speech ends; between the two, a window is what the one before it was."""

SHORTEST_PAUSE = 16_000 * 3 // 10
"""Samples of silence that part one stretch of speech from the next: 300 ms."""

MODEL = Path(str(files("steno.audio") / "silero_vad_v6.onnx"))


class VadModel:
    """The loaded model: one for a process, shared by all its detectors, on one thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(MODEL), options, providers=["CPUExecutionProvider"]
        )

    def run(
        self, windows: NDArray[np.float32], h: NDArray[np.float32], c: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Hears windows of shape (n, 64 + 512) in order.

        Returns probabilities of shape (n,) and the next h and c.
        """
        probabilities, h, c = self._session.run(None, {"input": windows, "h": h, "c": c})
        return probabilities.reshape(-1), h, c


class SpeechDetector:
    """Hears one recording, in blocks of any size, and gives a probability for each window.

    Probabilities come in order and, unless told otherwise, at most about a second late; `finish`
    gives the rest. Memory does not grow with the recording.
    """

    def __init__(self, model: VadModel, run_windows: int = RUN_WINDOWS) -> None:
        """Has heard nothing yet.

        Args:
            model: shared with others.
            run_windows: windows in one run of the model: how late a probability may come.
        """
        self._model = model
        self._run_samples = run_windows * WINDOW_SAMPLES
        self._h = np.zeros(STATE_SHAPE, np.float32)
        self._c = np.zeros(STATE_SHAPE, np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._waiting: list[NDArray[np.int16]] = []
        self._waiting_samples = 0

    def push(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        """Takes int16 samples of shape (n,); returns probabilities of shape (windows,)."""
        self._waiting.append(pcm)
        self._waiting_samples += len(pcm)
        run_samples = self._run_samples
        if self._waiting_samples < run_samples:
            return np.zeros(0, np.float32)
        samples = np.concatenate(self._waiting)
        ready = len(samples) // run_samples * run_samples
        self._waiting = [samples[ready:]]
        self._waiting_samples = len(samples) - ready
        return np.concatenate(
            [self._run(samples[at : at + run_samples]) for at in range(0, ready, run_samples)]
        )

    def finish(self) -> NDArray[np.float32]:
        """Returns what is left; the last window is filled up with silence."""
        samples = np.concatenate([np.zeros(0, np.int16), *self._waiting])
        self._waiting, self._waiting_samples = [], 0
        if not len(samples):
            return np.zeros(0, np.float32)
        return self._run(np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES)))

    def _run(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        samples = np.concatenate([self._context, to_float(pcm)])
        self._context = samples[-CONTEXT_SAMPLES:]
        windows = np.lib.stride_tricks.sliding_window_view(
            samples, CONTEXT_SAMPLES + WINDOW_SAMPLES
        )[::WINDOW_SAMPLES]
        probabilities, self._h, self._c = self._model.run(
            np.ascontiguousarray(windows), self._h, self._c
        )
        return probabilities


def speech_spans(model: VadModel, pcm: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Finds where somebody speaks in a whole recording: int16 samples of shape (n,).

    Returns the first sample of each stretch of speech and the one behind its last, in order. They
    are the stretches that faster-whisper finds without margins and with pauses of SHORTEST_PAUSE.
    """
    detector = SpeechDetector(model)
    probabilities = np.concatenate([detector.push(pcm), detector.finish()])
    spans: list[tuple[int, int]] = []
    start = pause = -1
    for at, probability in zip(
        range(0, len(pcm), WINDOW_SAMPLES), probabilities.tolist(), strict=True
    ):
        if probability >= SPEECH_THRESHOLD:
            start, pause = (at if start < 0 else start), -1
        elif probability < SILENCE_THRESHOLD and start >= 0:
            pause = at if pause < 0 else pause
            if at - pause >= SHORTEST_PAUSE:
                spans.append((start, pause))
                start = pause = -1
    if start >= 0:
        spans.append((start, len(pcm)))
    return spans
