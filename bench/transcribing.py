"""Rows 1 and 2: Steno beside plain faster-whisper: the same model, number format and threads."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from bench.natural import compare, half_an_hour, recordings
from bench.results import Result, result
from bench.side_by_side import Measured, ended, platform, raw, write_wav
from steno.transcript import SAMPLE_RATE
from steno.v1 import transcription_pb2

CLIPS = 64
HOW = ("sequential", "batched")
REACH = {"sequential": 2.0, "batched": 1.0}
MORE_ERRORS = {"sequential": 0.3, "batched": 0.0}
"""Points of word error rate that Steno may have more."""


async def files(folder: Path, rounds: int) -> list[Result]:
    """Half an hour of natural speech in 15 files, upload to transcript."""
    spoken = half_an_hour()
    paths = [write_wav(folder / f"{each.name}.wav", each.samples) for each in spoken]
    said, seconds = [each.text for each in spoken], sum(each.seconds for each in spoken)
    speed: dict[str, list[float]] = {how: [] for how in ("steno", *HOW)}
    errors = dict.fromkeys(speed, 0.0)
    async with platform(1) as measured:
        for _ in range(rounds):
            took, texts = await _transcribe_all(measured, paths)
            speed["steno"].append(seconds / took)
            errors["steno"] = 100 * compare(said, texts).wer
            for how in HOW:
                took, found = await raw(how, paths)
                speed[how].append(seconds / took)
                errors[how] = 100 * compare(said, [each["text"] for each in found]).wer
    detail = ", ".join(f"{how} {sorted(v)[len(v) // 2]:.1f}" for how, v in speed.items())
    wrong = ", ".join(f"{how} {rate:.2f} %" for how, rate in errors.items())
    results = []
    for how in HOW:
        ratios = [a / b for a, b in zip(speed["steno"], speed[how], strict=True)]
        results += [
            result(
                1, f"{seconds / 60:.0f} min of natural speech, Steno over {how}", ratios,
                REACH[how], f"audio seconds a second: {detail}",
            ),
            result(
                1, f"its word error rate above that of {how}, points",
                [errors["steno"] - errors[how]], MORE_ERRORS[how], wrong, at_most=True,
            ),
        ]  # fmt: skip
    return results


async def clips(folder: Path, rounds: int) -> list[Result]:
    """64 clips at once; and one alone."""
    rng = random.Random(2)
    paths = [_clip(folder / f"clip-{n}.wav", rng) for n in range(CLIPS)]
    lone = _clip(folder / "lone.wav", rng)
    shares, gains, latencies = [], [], []
    detail = ""
    async with platform(1) as measured:
        request = transcription_pb2.RecognizeRequest(content=lone.read_bytes())
        for _ in range(rounds):
            took, _ = await _transcribe_all(measured, paths)
            limit, _ = await raw("clips", paths)
            sequential, _ = await raw("sequential", paths)
            shares.append(limit / took)
            gains.append(sequential / took)
            times = []
            for _ in range(5):
                began = time.perf_counter()
                heard = await measured.client.transcription.Recognize(request)
                times.append(time.perf_counter() - began)
                assert heard.text
            alone = (await raw("sequential", [lone] * 5))[0] / 5
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


def _clip(path: Path, rng: random.Random) -> Path:
    """Some sentences in a row."""
    whole = rng.choice(recordings())
    first = rng.randrange(len(whole.sentences) - 6)
    start, end = whole.sentences[first][0], whole.sentences[first + rng.randint(1, 5)][1]
    return write_wav(path, whole.samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)])


async def _transcribe_all(measured: Measured, paths: Sequence[Path]) -> tuple[float, list[str]]:
    """Seconds from the first upload to the last transcript, and the texts."""
    began = time.perf_counter()

    async def one(name: str, data: bytes) -> str:
        audio = await measured.client.upload(name, data)
        job = await measured.client.create_job(audio.audio_id)
        await ended(measured.client, job.job_id)
        return (await measured.client.transcript(job.job_id)).text

    texts = await asyncio.gather(*(one(path.name, path.read_bytes()) for path in paths))
    assert all(texts)
    return time.perf_counter() - began, texts
