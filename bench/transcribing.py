"""Rows 1 and 2: Steno beside plain faster-whisper on the same model, beam and threads."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from bench import shape
from bench.results import Result, result
from bench.side_by_side import THREADS, Measured, ended, platform, raw, spoken, write_wav
from steno.v1 import transcription_pb2

FILES, FILE_SECONDS = 10, 180
CLIPS = 64


async def files(folder: Path, rounds: int) -> list[Result]:
    """30 minutes in 10 files, upload to transcript."""
    model = shape.make(folder / "shape")
    paths = [
        write_wav(folder / f"file-{n}.wav", spoken(FILE_SECONDS, n * 61)) for n in range(FILES)
    ]
    seconds = FILES * FILE_SECONDS
    found: dict[str, list[float]] = {"steno": [], "batched": [], "sequential": []}
    async with platform(1, str(model)) as measured:
        for _ in range(rounds):
            found["steno"].append(seconds / await _transcribe_all(measured, paths))
            for how in ("batched", "sequential"):
                alone = await raw(how, model, paths, THREADS)
                _check(alone["words"])  # type: ignore[arg-type]
                found[how].append(seconds / float(alone["seconds"]))  # type: ignore[arg-type]
    detail = ", ".join(f"{how} {sorted(v)[len(v) // 2]:.1f}" for how, v in found.items())
    detail = f"audio seconds a second: {detail}"
    return [
        result(
            1, f"30 min in 10 files, Steno over {how}",
            [a / b for a, b in zip(found["steno"], found[how], strict=True)], 0.95, detail,
        )
        for how in ("batched", "sequential")
    ]  # fmt: skip


async def clips(folder: Path, rounds: int) -> list[Result]:
    """64 clips at once; and one alone."""
    model = shape.make(folder / "shape")
    rng = random.Random(2)
    paths = [
        write_wav(folder / f"clip-{n}.wav", spoken(rng.uniform(5, 29), rng.uniform(0, 600)))
        for n in range(CLIPS)
    ]
    lone = write_wav(folder / "lone.wav", spoken(10, 3))
    shares, gains, latencies = [], [], []
    detail = ""
    async with platform(1, str(model)) as measured:
        request = transcription_pb2.RecognizeRequest(content=lone.read_bytes())
        for _ in range(rounds):
            took = await _transcribe_all(measured, paths)
            limit = float((await raw("clips", model, paths, THREADS))["seconds"])  # type: ignore[arg-type]
            sequential = float((await raw("sequential", model, paths, THREADS))["seconds"])  # type: ignore[arg-type]
            shares.append(limit / took)
            gains.append(sequential / took)
            times = []
            for _ in range(5):
                began = time.perf_counter()
                heard = await measured.client.transcription.Recognize(request)
                times.append(time.perf_counter() - began)
                _check([len(heard.text.split())])
            alone = float((await raw("sequential", model, [lone] * 5, THREADS))["seconds"]) / 5  # type: ignore[arg-type]
            latencies.append(sorted(times)[2] / alone)
            detail = (
                f"Steno {took:.1f} s, batches {limit:.1f} s, sequential {sequential:.1f} s; "
                f"a lone clip {sorted(times)[2]:.2f} s, raw {alone:.2f} s"
            )
    return [
        result(2, "64 clips at once, Steno over full batches", shares, 0.9, detail),
        result(2, "64 clips at once, Steno over sequential", gains, 1.0),
        result(2, "latency of a lone clip over raw", latencies, 1.15, at_most=True),
    ]


async def _transcribe_all(measured: Measured, paths: Sequence[Path]) -> float:
    """Seconds from the first upload to the last transcript."""
    began = time.perf_counter()

    async def one(name: str, data: bytes) -> str:
        audio = await measured.client.upload(name, data)
        job = await ended(
            measured.client, (await measured.client.create_job(audio.audio_id)).job_id
        )
        return (await measured.client.transcript(job.job_id)).text

    texts = await asyncio.gather(*(one(path.name, path.read_bytes()) for path in paths))
    took = time.perf_counter() - began
    _check([len(text.split()) for text in texts])
    return took


def _check(words: Sequence[int]) -> None:
    """Each file has the text of one window or more, and no part of one."""
    assert all(count and count % shape.TEXT_TOKENS == 0 for count in words), words
