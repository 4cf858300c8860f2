"""Worker processes that are killed, paused and stopped."""

import signal
from functools import partial

import pytest

from steno.local.servers import LocalServers
from steno.platform.errors import Unavailable
from steno.transcript import SAMPLE_RATE
from steno.transcription.engine import Samples
from steno.transcription.whisper import FasterWhisper
from steno.v1 import job_pb2 as pb
from waiting import eventually

from .conftest import Platform, StartWorker, Task


@pytest.fixture
def speech(speech: Samples) -> Samples:
    """More than a window of speech: there is time to kill who works on it."""
    return speech[: 33 * SAMPLE_RATE]


def lease_ended(task: Task) -> bool:
    return task.state == "LEASED" and not task.is_held


def is_done_or_free(task: Task) -> bool:
    return task.state == "DONE" or lease_ended(task)


async def sent(platform: Platform, task: Task) -> bool:
    try:
        await platform.send(task)
    except Unavailable:
        return False
    return True


async def undisturbed(platform: Platform, engine: FasterWhisper, speech: Samples) -> str:
    task = await platform.offer(speech)
    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")
    return task.text


@pytest.mark.long
async def test_what_a_killed_worker_held_is_done_by_another_with_the_same_text(
    platform: Platform, engine: FasterWhisper, speech: Samples, start_worker: StartWorker
) -> None:
    expected = await undisturbed(platform, engine, speech)
    tasks = [await platform.offer(speech) for _ in range(3)]
    killed = start_worker("killed")
    await eventually(lambda: any(task.state == "LEASED" for task in tasks), within=100)
    killed.process.kill()
    start_worker("other")

    for task in tasks:
        # The other worker starts meanwhile, and loads its model.
        await eventually(partial(is_done_or_free, task), within=100)
        await platform.send(task)  # as the job service does when a lease ends
    await eventually(lambda: all(task.state == "DONE" for task in tasks), within=100)

    assert any(task.workers == ["killed", "other"] for task in tasks)
    assert {task.text for task in tasks} == {expected}


@pytest.mark.long
async def test_a_paused_worker_that_comes_back_changes_nothing(
    platform: Platform, speech: Samples, start_worker: StartWorker
) -> None:
    task = await platform.offer(speech)
    paused = start_worker("paused")
    await eventually(lambda: task.state == "LEASED", within=100)
    paused.process.send_signal(signal.SIGSTOP)
    await eventually(lambda: lease_ended(task), within=60)
    start_worker("other")
    await platform.send(task)
    await eventually(lambda: task.state == "DONE", within=100)
    done = task.transcripts[0]

    paused.process.send_signal(signal.SIGCONT)
    await eventually(lambda: "task stale" in paused.log, within=60)

    assert task.workers == ["paused", "other"]
    assert task.transcripts == [done]
    assert not task.failures


async def test_a_worker_told_to_stop_loses_nothing_and_exits_with_0(
    platform: Platform, speech: Samples, start_worker: StartWorker
) -> None:
    tasks = [await platform.offer(speech) for _ in range(3)]
    worker = start_worker("stopped")
    await eventually(lambda: any(task.state == "LEASED" for task in tasks), within=100)

    worker.process.send_signal(signal.SIGTERM)
    await eventually(lambda: worker.process.poll() is not None, within=60)

    assert worker.process.returncode == 0, worker.log
    assert all(task.state in ("PENDING", "DONE") for task in tasks)
    assert {each.failure for task in tasks for each in task.failures} <= {
        pb.TASK_FAILURE_HANDED_BACK
    }


@pytest.mark.long
async def test_a_worker_goes_on_after_nats_was_wiped(
    platform: Platform, speech: Samples, start_worker: StartWorker, servers: LocalServers
) -> None:
    running, waiting, lost = [await platform.offer(speech) for _ in range(3)]
    worker = start_worker("worker")
    await eventually(lambda: "PENDING" not in (running.state, waiting.state), within=100)
    await servers.nats.kill()
    servers.nats.wipe()
    await servers.nats.start()

    await eventually(lambda: running.state == waiting.state == "DONE", within=100)
    await eventually(
        lambda: sent(platform, lost)
    )  # as the job service does when it misses the message

    await eventually(lambda: lost.state == "DONE", within=100)
    assert worker.process.poll() is None
    assert running.attempt == waiting.attempt == 1


async def test_a_worker_that_waits_for_nats_can_be_stopped(
    platform: Platform, start_worker: StartWorker, servers: LocalServers
) -> None:
    await servers.nats.stop()
    try:
        worker = start_worker("waiting")
        await eventually(lambda: "Connect call failed" in worker.log, within=100)
        worker.process.send_signal(signal.SIGTERM)
        await eventually(lambda: worker.process.poll() is not None, within=60)
    finally:
        await servers.nats.start()

    assert worker.process.returncode == 0, worker.log
