"""Thousands watch one replica."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processes import memory_of
from steno.local.child import Child, Command
from steno.local.ports import free_port
from steno.platform.messaging import Messaging
from steno.v1.job_pb2_grpc import JobServiceStub, TaskServiceStub
from waiting import eventually, impatient_channel

from .conftest import Replica, Upload, Worker


@pytest.fixture
async def own_process(
    environment: dict[str, str], messaging: Messaging, upload: Upload, tmp_path: Path
) -> AsyncIterator[tuple[Replica, int]]:
    """A replica in a process of its own, and its process id."""
    await messaging.ensure_streams()
    address = f"127.0.0.1:{free_port()}"
    own = {
        "STENO_LISTEN": address,
        "STENO_UPLOAD_ADDRESS": upload.address,
        # The only task is held while all of them come.
        "STENO_TASK_LEASE_SECONDS": "300",
    }
    command = Command([sys.executable, "-m", "steno.job"], os.environ | own, tmp_path / "job.log")
    child = Child("job", command)
    child.start()
    assert child.pid
    try:
        async with impatient_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
            stubs = JobServiceStub(channel), TaskServiceStub(channel)
            yield Replica(*stubs, channel, asyncio.Event(), None), child.pid
    finally:
        await child.stop()


@pytest.mark.parametrize("watchers", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_thousands_watch_at_once_and_none_is_refused_or_misses_anything(
    own_process: tuple[Replica, int], upload: Upload, messaging: Messaging, watchers: int
) -> None:
    service, pid = own_process
    worker = Worker(service.tasks, messaging)
    job = await service.create(upload.record(slices=1))
    work = await worker.take()
    before = memory_of(pid)
    seen: list[list[int]] = [[] for _ in range(watchers)]

    async def watch(into: list[int]) -> None:
        async for response in service.watch(job):
            if response.HasField("event"):
                into.append(response.event.revision)

    async with asyncio.TaskGroup() as watching:
        for each in seen:
            watching.create_task(watch(each))
        await eventually(lambda: all(seen), within=120)
        during = memory_of(pid)
        await worker.complete(work)

    last = (await service.get(job)).revision
    assert all(each == list(range(1, last + 1)) for each in seen)
    assert during - before < watchers * 30 * 1024
