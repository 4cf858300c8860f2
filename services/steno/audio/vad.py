"""Where there is speech: Silero VAD over a stream, one probability for each 32 ms.

The model is the ONNX file that lies in faster-whisper's wheel (version 6, MIT). Inputs, context
and state are those of `faster_whisper/vad.py`, after github.com/snakers4/silero-vad: each window
of 512 samples is preceded by the last 64 samples of the one before (zeros at the start), and the
recurrent state (h, c), each of shape (1, 1, 128), is carried from run to run.
"""

from __future__ import annotations

import importlib.util
import os
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

MODEL_FILE = "silero_vad_v6.onnx"


def model_path() -> Path:
    """Finds the model in faster-whisper's wheel without importing that package.

    Raises `FileNotFoundError` if it is not installed.
    """
    spec = importlib.util.find_spec("faster_whisper")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("faster-whisper, whose wheel holds the VAD model, is not installed")
    path = Path(spec.origin).parent / "assets" / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"this faster-whisper has no {MODEL_FILE}")
    return path


class VadModel:
    """The loaded model: one for a process, shared by all its detectors, on one thread."""

    def __init__(self, path: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(path or model_path()), options, providers=["CPUExecutionProvider"]
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
