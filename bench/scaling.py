"""Rows 3 and 7: one recording over many workers, and what the death of one of them costs."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg

from bench.results import Result, result
from bench.side_by_side import Measured, ended, platform, spoken, write_wav
from steno.local.health import Health, grpc_health
from steno.v1 import job_pb2
from waiting import eventually

HOUR = 3600


async def workers(folder: Path, rounds: int) -> list[Result]:
    """One hour: 16 sleeping workers over one; two real single-thread ones over one."""
    hour = write_wav(folder / "hour.wav", spoken(HOUR)).read_bytes()
    results = []
    for name, many, reach, options in (
        ("16 sleeping workers over 1", 16, 14, {"sleeping": True, "STENO_BENCH_SPEED": "40"}),
        ("2 single-thread workers over 1", 2, 1.85, {"STENO_CPU_THREADS": "1"}),
    ):
        async with AsyncExitStack() as stack:
            sides = [
                await stack.enter_async_context(platform(count, **options)) for count in (1, many)
            ]
            audios = [await side.ready("hour.wav", hour) for side in sides]
            ratios, times = [], (0.0, 0.0)
            for _ in range(rounds):
                runs = [await side.run(audio) for side, audio in zip(sides, audios, strict=True)]
                texts = [
                    [
                        segment.text
                        for segment in (await side.client.transcript(job.job_id)).segments
                    ]
                    for side, (_, job) in zip(sides, runs, strict=True)
                ]
                assert texts[0] == texts[1] != [], "the transcript depends on who made it"
                times = (runs[0][0], runs[1][0])
                ratios.append(times[0] / times[1])
            detail = f"{times[0]:.1f} s and {times[1]:.1f} s"
            results.append(result(3, f"one hour, {name}", ratios, reach, detail))
    return results


async def killing(folder: Path, rounds: int) -> list[Result]:
    """One of four workers is killed half way, and stays away."""
    hour = write_wav(folder / "hour.wav", spoken(HOUR)).read_bytes()
    ratios, detail = [], ""
    async with platform(4, sleeping=True, STENO_BENCH_SPEED="10") as measured:
        audio = await measured.ready("hour.wav", hour)
        for _ in range(rounds):
            undisturbed, _ = await measured.run(audio)
            disturbed, again = await _with_a_death(measured, audio)
            ratios.append(disturbed / undisturbed)
            detail = (
                f"{undisturbed:.1f} s and {disturbed:.1f} s; {again} slices leased again: the one "
                "in the model, and what was fetched ahead"
            )
    return [
        result(7, "time with 1 of 4 workers killed, over undisturbed", ratios, 1.35, detail,
               at_most=True),
    ]  # fmt: skip


async def _with_a_death(measured: Measured, audio: str) -> tuple[float, int]:
    """Seconds, and how many slices were leased twice.

    The worker is held back from coming again until the job has ended.
    """
    began = time.perf_counter()
    job = await measured.client.create_job(audio)
    stopped = None
    request = job_pb2.WatchJobRequest(job_id=job.job_id)
    async for response in measured.client.jobs.WatchJob(request):
        progress = response.event.progressed.fraction
        if stopped is None and progress >= 0.5:
            stopped = measured.pid("transcription-4")
            os.kill(stopped, signal.SIGSTOP)  # for the others it is as dead as after SIGKILL
    assert stopped is not None, "it ended before anybody could be killed"
    await ended(measured.client, job.job_id)
    took = time.perf_counter() - began
    os.kill(stopped, signal.SIGKILL)
    await eventually(lambda: measured.pid("transcription-4") != stopped, within=60)
    address = measured.platform.addresses["transcription-4"]

    async def is_ready() -> bool:
        return await grpc_health(address) is Health.READY

    await eventually(is_ready, within=60)
    return took, await _leased_twice(measured, job.job_id)


async def _leased_twice(measured: Measured, job_id: str) -> int:
    url = measured.platform.servers.postgres.url
    async with await psycopg.AsyncConnection.connect(url) as db:
        statement = "SELECT count(*) FROM job.tasks WHERE job_id = %s AND attempt > 1"
        found = await (await db.execute(statement, (job_id,))).fetchone()
    assert found is not None
    return int(found[0])
