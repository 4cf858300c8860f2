"""Rows 4 to 6 and 8: what the platform costs without a model."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
from minio import Minio

from bench import celery_jobs
from bench.results import Result, result
from bench.side_by_side import (
    MODEL,
    Measured,
    cpu_seconds,
    ended,
    platform,
    spoken,
    write_wav,
)
from processes import memory_of
from steno.cli.connection import Addresses, Services
from steno.cli.failures import CliError
from steno.cli.uploading import PARTS_AT_ONCE, Uploader
from steno.models import store_at
from steno.v1 import job_pb2

WATCHERS = 200
GIB = 2**30
CLIENTS = 8
JOBS = 400


async def watching(folder: Path, rounds: int) -> list[Result]:
    """Events that reach watchers, a second of the server's processor time."""
    audio = write_wav(folder / "long.wav", spoken(1800)).read_bytes()
    ratios, detail = [], ""
    async with platform(1, sleeping=True) as measured:
        audio_id = await measured.ready("long.wav", audio)
        _, job = await measured.run(audio_id)
        request = job_pb2.WatchJobRequest(job_id=job.job_id)
        async with AsyncExitStack() as stack:
            events = [
                response.SerializeToString()
                async for response in measured.client.jobs.WatchJob(request)
            ]
            bare = await stack.enter_async_context(_bare(folder, events))
            for _ in range(rounds):
                rates = []
                for address, pid in (
                    (measured.platform.addresses["job"], measured.pid("job")),
                    bare,
                ):
                    before = cpu_seconds(pid)
                    count = await _watch_all(address, request, len(events))
                    rates.append(count / max(0.01, cpu_seconds(pid) - before))
                ratios.append(rates[0] / rates[1])
                detail = f"{rates[0]:.0f} and {rates[1]:.0f} events a second"
    return [result(5, "watch events a CPU second, over bare grpc.aio", ratios, 0.8, detail)]


class _bare:
    """A server process that writes encoded messages to whoever calls WatchJob."""

    def __init__(self, folder: Path, events: Sequence[bytes]) -> None:
        self._file = folder / "events"
        self._file.write_bytes(b"".join(len(e).to_bytes(4, "big") + e for e in events))

    async def __aenter__(self) -> tuple[str, int]:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.bare", str(self._file), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        port = int(await self._process.stdout.readline())
        return f"127.0.0.1:{port}", self._process.pid

    async def __aexit__(self, *error: object) -> None:
        self._process.terminate()
        await self._process.wait()


async def _watch_all(address: str, request: job_pb2.WatchJobRequest, expected: int) -> int:
    """All watchers replay the log at once; returns the number of messages that came."""
    async with grpc.aio.insecure_channel(address) as channel:
        watch = channel.unary_stream(
            "/steno.v1.JobService/WatchJob",
            request_serializer=job_pb2.WatchJobRequest.SerializeToString,
            response_deserializer=lambda data: data,
        )

        async def one() -> int:
            return sum([1 async for _ in watch(request)])

        counts = await asyncio.gather(*(one() for _ in range(WATCHERS)))
    assert all(count == expected for count in counts), (counts, expected)
    return sum(counts)


async def uploading(folder: Path, rounds: int) -> list[Result]:
    """1 GiB through the CLI's uploader, over the bare S3 client with as many threads."""
    path = folder / "gibibyte.bin"
    block = os.urandom(2**20)
    with path.open("wb") as file:
        for _ in range(GIB // len(block)):
            file.write(block)
    ratios, costs, detail = [], [], ""
    async with platform(1, sleeping=True) as measured, AsyncExitStack() as stack:
        services = Services(Addresses.running(measured.platform.addresses, "bench"), 60, stack)
        servers = measured.platform.servers
        client = Minio(
            servers.s3.url.removeprefix("http://"), servers.secrets.s3_access_key,
            servers.secrets.s3_secret_key, secure=False,
        )  # fmt: skip
        for number in range(rounds):
            before = cpu_seconds(measured.pid("upload"))
            began = time.perf_counter()
            uploader = Uploader(services)
            try:
                await uploader.upload(str(path), lambda size: None, lambda size: None)
            except CliError as error:
                if error.reason != "AUDIO_REJECTED":  # it is no audio, and it has landed
                    raise
            finally:
                uploader.close()
            steno = time.perf_counter() - began
            costs.append(cpu_seconds(measured.pid("upload")) - before)
            began = time.perf_counter()
            await asyncio.to_thread(
                client.fput_object, servers.s3.bucket, f"bench-{number}", str(path),
                num_parallel_uploads=PARTS_AT_ONCE, part_size=16 * 2**20,
            )  # fmt: skip
            bare = time.perf_counter() - began
            client.remove_object(servers.s3.bucket, f"bench-{number}")
            ratios.append(bare / steno)
            detail = f"{1024 / steno:.0f} and {1024 / bare:.0f} MiB a second"
    path.unlink()
    began = time.perf_counter()
    for _ in range(256):
        hashlib.sha256(block).digest()
    hashing = 4 * (time.perf_counter() - began)
    return [
        result(6, "upload of 1 GiB, over the bare S3 client", ratios, 0.95, detail),
        result(6, "CPU seconds of the upload service for 1 GiB", costs, 0.2,
               f"SHA-256 of 1 GiB alone takes {hashing:.2f} s", at_most=True),
    ]  # fmt: skip


async def jobs(folder: Path, rounds: int) -> list[Result]:
    """Jobs that do nothing, over Celery with Redis running a no-op."""
    audio = write_wav(folder / "second.wav", spoken(1, 3)).read_bytes()
    single, batches, detail = [], [], ""
    async with platform(1, sleeping=True) as measured:
        audio_id = await measured.ready("second.wav", audio)
        with celery_jobs.running(folder) as celery:
            for _ in range(rounds):
                one = JOBS / await _make_jobs(measured, audio_id, 1)
                many = JOBS / await _make_jobs(measured, audio_id, 100)
                other = JOBS / await asyncio.to_thread(celery.run, JOBS, CLIENTS)
                single.append(one / other)
                batches.append(many / other)
                detail = (
                    f"jobs a second: {one:.0f} single, {many:.0f} in batches, Celery {other:.0f}"
                )
    return [
        result(4, "jobs a second over Celery with Redis, one by one", single, 1, detail),
        result(4, "jobs a second over Celery with Redis, in batches", batches, 4),
    ]


async def _make_jobs(measured: Measured, audio_id: str, size: int) -> float:
    """Seconds until JOBS jobs, made by CLIENTS clients, have all ended."""
    began = time.perf_counter()
    request = job_pb2.CreateJobRequest(audio_id=audio_id)
    calls = iter(range(JOBS // size))

    async def client() -> list[str]:
        made = []
        for _ in calls:
            batch = job_pb2.BatchCreateJobsRequest(requests=[request] * size)
            if size == 1:
                made.append((await measured.client.jobs.CreateJob(request)).job.job_id)
            else:
                response = await measured.client.jobs.BatchCreateJobs(batch)
                made += [job.job_id for job in response.jobs]
        return made

    made = [id for ids in await asyncio.gather(*(client() for _ in range(CLIENTS))) for id in ids]
    assert len(made) == JOBS
    await asyncio.gather(*(ended(measured.client, job_id) for job_id in made))
    return time.perf_counter() - began


async def memory(folder: Path, rounds: int) -> list[Result]:
    """Idle services; and a worker over the model in a bare process."""
    model = str(store_at().open(MODEL).folder)
    async with platform(1) as measured:
        bare = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.raw", "load", "--model", model, "--threads", "2",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert bare.stdout is not None
        await bare.stdout.readline()
        alone = memory_of(bare.pid) / 1e6
        bare.kill()
        await bare.wait()
        services = {name: memory_of(measured.pid(name)) / 1e6 for name in ("job", "upload")}
        worker = memory_of(measured.pid("transcription")) / 1e6
    return [
        *(
            result(8, f"memory of the idle {name} service, MB", [size], 120, at_most=True)
            for name, size in services.items()
        ),
        result(8, "memory of a worker over the bare model", [worker / alone], 1.3,
               f"{worker:.0f} and {alone:.0f} MB", at_most=True),
    ]  # fmt: skip
