"""What the rows share: platforms to measure, files to send, processes to compare with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.natural import recordings
from platform_client import Client
from running_platform import RunningPlatform, run_services
from steno.local.supervisor import services
from steno.models import DEFAULT, store_at
from steno.transcript import SAMPLE_RATE
from steno.v1 import job_pb2

MODEL = DEFAULT
THREADS = os.cpu_count() or 1


class Measured(RunningPlatform):
    """A platform, its client, and what rows ask of it."""

    async def run(self, audio_id: str) -> tuple[float, job_pb2.Job]:
        """Seconds from CreateJob to the end of a job, which must succeed."""
        began = time.perf_counter()
        job = await self.client.create_job(audio_id)
        job = await ended(self.client, job.job_id)
        return time.perf_counter() - began, job

    async def ready(self, name: str, data: bytes) -> str:
        """Sends a file and waits until it is prepared; returns the audio's id."""
        from steno.v1 import upload_pb2

        audio = await self.client.upload(name, data)
        while audio.state == upload_pb2.AUDIO_STATE_PREPARING:
            await asyncio.sleep(0.5)
            request = upload_pb2.GetAudioRequest(audio_id=audio.audio_id)
            audio = (await self.client.uploads.GetAudio(request)).audio
        assert audio.state == upload_pb2.AUDIO_STATE_READY, audio
        return audio.audio_id


async def ended(client: Client, job_id: str) -> job_pb2.Job:
    """Follows a job to its end."""
    request = job_pb2.WatchJobRequest(job_id=job_id)
    async for _ in client.jobs.WatchJob(request):
        pass
    job = (await client.jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id))).job
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.error
    return job


@asynccontextmanager
async def platform(
    workers: int, model: str = MODEL, *, sleeping: bool = False, **environment: str
) -> AsyncIterator[Measured]:
    """A platform in a folder of its own, on free ports.

    Args:
        workers: how many.
        model: a name, or NAME=FOLDER.
        sleeping: workers without a model.
        environment: settings of all services.
    """
    wanted = services([model], workers)
    if sleeping:
        wanted = [
            replace(each, module="bench.sleeping") if each.module == "steno.transcription" else each
            for each in wanted
        ]
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="steno-bench-"))
        running = await run_services(stack, wanted, Path(folder), **environment)
        yield Measured(running.platform, running.client)


async def raw(
    how: str, files: Sequence[Path], model: str = MODEL, *options: str
) -> tuple[float, list[dict[str, Any]]]:
    """faster-whisper by itself, in a process of its own.

    Returns the seconds that it took, and the text and the times of the words of each file.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.raw", how, "--threads", str(THREADS), *options),
        *("--model", str(store_at().open(model).folder), *map(str, files)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, how
    told = json.loads(out)
    return told["seconds"], told["found"]


@cache
def speech() -> np.ndarray:
    """Thirteen minutes of speech, as samples of 16 bits."""
    return np.concatenate([each.samples for each in recordings()])


def spoken(seconds: float, offset: float = 0.0) -> np.ndarray:
    """That much of it, from an offset on, from the start again where it ends."""
    source = speech()
    first = int(offset * SAMPLE_RATE)
    return np.take(source, range(first, first + int(seconds * SAMPLE_RATE)), mode="wrap")


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """Writes 16 kHz mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return path


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
