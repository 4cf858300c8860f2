"""Steno's engine and faster-whisper's batched pipeline, each on the same recordings.

Nothing else of the platform takes part: the slices are cut beforehand, and no task is leased.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from prometheus_client import REGISTRY

from bench.natural import Recording
from steno.audio import Slicer, SpeechDetector, VadModel, to_float
from steno.models import Windows
from steno.transcript import Options, Span
from steno.transcription.engine import Line, Samples
from steno.transcription.threaded import ThreadedEngine
from steno.transcription.whisper import MOST_THREADS, FasterWhisper

COMPUTE_TYPE = {"cpu": "int8", "cuda": "float16"}
BEAM_SIZE = 5
OPTIONS = Options(language_code="en")
BATCH_WINDOW_SECONDS = 0.005
"""What a worker has unless it is told otherwise."""
SAMPLE_SECONDS = 0.2
"""Between two looks at the GPU."""

_THREADS = min(MOST_THREADS, os.cpu_count() or 1)


@dataclass(frozen=True)
class Run:
    """What one of them made of the recordings.

    Attributes:
        seconds: that it took.
        text: that it heard.
        gpu_busy: share of the time in which the GPU worked, 0 to 1; None where nobody tells.
        batcher_busy: share of the time in which Steno's batcher had the model work, 0 to 1; None
            for who has none.
        windows_a_batch: mean of Steno's batches; None for who has none.
    """

    seconds: float
    text: str
    gpu_busy: float | None = None
    batcher_busy: float | None = None
    windows_a_batch: float | None = None


class Side(Protocol):
    """One of the two, with a model that is loaded."""

    def run(self, recordings: Sequence[Recording], batch_size: int, limit: float) -> Run:
        """Hears recordings.

        Args:
            recordings: in order; one may come several times.
            batch_size: windows that the model decodes together.
            limit: seconds that it may take.

        Raises:
            TimeoutError: it takes longer.
            RuntimeError: the memory of the GPU is too short.
        """


class Batched:
    """faster-whisper's batched pipeline. All recordings are one, so that its batches are full."""

    def __init__(self, folder: Path, device: str) -> None:
        self._device = device
        self._pipeline = BatchedInferencePipeline(
            WhisperModel(
                str(folder),
                device=device,
                compute_type=COMPUTE_TYPE[device],
                cpu_threads=_THREADS,
                local_files_only=True,
            )
        )

    def run(self, recordings: Sequence[Recording], batch_size: int, limit: float) -> Run:
        samples = to_float(np.concatenate([each.samples for each in recordings]))
        texts = []
        with _watched(self._device) as busy:
            began = time.perf_counter()
            segments, _ = self._pipeline.transcribe(
                samples, language="en", beam_size=BEAM_SIZE, batch_size=batch_size
            )
            for segment in segments:
                texts.append(segment.text)
                if time.perf_counter() - began > limit:
                    raise TimeoutError
            seconds = time.perf_counter() - began
        return Run(seconds, "".join(texts), _mean(busy))


class Steno:
    """Steno's engine, given slices as a worker gives them: each recording is a job."""

    def __init__(self, folder: Path, device: str, windows: Windows | None) -> None:
        """Loads the model.

        Args:
            folder: its files.
            device: `cuda` or `cpu`.
            windows: those that it understands best.
        """
        self._device = device
        self._vad = VadModel()
        self._slices: dict[str, list[np.ndarray]] = {}
        self._model = FasterWhisper(
            folder.name,
            folder,
            "measured",
            device=device,
            compute_type=COMPUTE_TYPE[device],
            cpu_threads=_THREADS,
            beam_size=BEAM_SIZE,
            batch_window_seconds=BATCH_WINDOW_SECONDS,
            windows=windows,
        )
        self._model.warm_up()

    def run(self, recordings: Sequence[Recording], batch_size: int, limit: float) -> Run:
        self._cut(recordings)
        self._model.batcher.max_batch = batch_size
        batches = _batches()
        with _watched(self._device) as busy:
            began = time.perf_counter()
            texts, model_seconds = asyncio.run(self._hear(recordings, limit))
            seconds = time.perf_counter() - began
        windows, count = (now - before for now, before in zip(_batches(), batches, strict=True))
        return Run(
            seconds, "".join(texts), _mean(busy), model_seconds / seconds, windows / max(1, count)
        )

    def close(self) -> None:
        """Ends the model's thread."""
        self._model.close()

    def _cut(self, recordings: Sequence[Recording]) -> None:
        """Prepares recordings as the platform does."""
        new = {each.name: each for each in recordings if each.name not in self._slices}

        def cut(recording: Recording) -> list[np.ndarray]:
            slicer = Slicer(SpeechDetector(self._vad))
            return [each.pcm for each in (*slicer.push(recording.samples), *slicer.finish())]

        with ThreadPoolExecutor() as threads:
            self._slices |= zip(new, threads.map(cut, new.values()), strict=True)

    async def _hear(self, recordings: Sequence[Recording], limit: float) -> tuple[list[str], float]:
        """The text of each slice, in order; and the seconds that the model worked."""
        most = self._model.slices_at_once
        hands = asyncio.Semaphore(most)
        async with asyncio.timeout(limit), ThreadedEngine(self._model, most) as engine:

            async def one(job: str, samples: Samples) -> tuple[str, float]:
                async with hands:
                    recognition = engine.recognition(samples, Line.JOB, job)
                    found = [segment async for segment in recognition.segments(OPTIONS)]
                    within = Span(0, len(samples))
                    found, _ = await recognition.cover(OPTIONS, found, within)
                text = "".join(segment.text for segment in found if not segment.is_dropped)
                return text, recognition.model_seconds

            heard = await asyncio.gather(
                *(
                    one(f"job-{number}", to_float(pcm))
                    for number, recording in enumerate(recordings)
                    for pcm in self._slices[recording.name]
                )
            )
        return [text for text, _ in heard], sum(seconds for _, seconds in heard)


def _batches() -> tuple[float, float]:
    """Windows and batches that Steno's batcher has seen until now."""
    windows, count = (
        REGISTRY.get_sample_value(f"steno_batch_windows_{name}") or 0.0 for name in ("sum", "count")
    )
    return windows, count


@contextmanager
def _watched(device: str) -> Iterator[list[float]]:
    """Looks at the GPU while the body runs; gives the busy shares that it sees, 0 to 1."""
    seen: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            share = nvidia_smi("utilization.gpu")
            if share.isdigit():
                seen.append(int(share) / 100)

    watcher = threading.Thread(target=watch, daemon=True)
    if device == "cuda" and nvidia_smi("utilization.gpu").isdigit():
        watcher.start()
    try:
        yield seen
    finally:
        over.set()
        if watcher.is_alive():
            watcher.join()


def nvidia_smi(field: str) -> str:
    """What nvidia-smi tells of the first GPU that may be used; empty where it is not there."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    asked = (f"--id={gpu}", f"--query-gpu={field}", "--format=csv,noheader,nounits")
    try:
        told = subprocess.run(["nvidia-smi", *asked], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if told.returncode else told.stdout.strip()


def _mean(shares: Sequence[float]) -> float | None:
    return sum(shares) / len(shares) if shares else None
