"""Nothing is lost: messages, news, servers and replicas may go at any moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest

from rows import Rows
from steno.job.audio import AudioSource
from steno.job.domain import Audio
from steno.job.watch import WATCHERS
from steno.local.servers import LocalServers
from steno.platform.messaging import EVENTS, Messaging
from steno.v1 import job_pb2 as pb
from steno.v1.events_pb2 import JobEventMessage
from waiting import eventually

from .conftest import Recording, Replica, StartReplica, Upload, Worker, announce


async def hears(replica: Replica, upload: Upload, messaging: Messaging) -> None:
    """Waits until a replica hears of audio: news from before it listens are lost."""
    recording = upload.record(ready=False)
    await replica.create(recording)
    await looked_at_twice(upload, recording)
    recording.finish()
    asked = len(upload.asked)

    async def asks() -> bool:
        await announce(messaging, recording)
        return len(upload.asked) > asked

    await eventually(asks)


async def looked_at_twice(upload: Upload, recording: Recording) -> None:
    """Waits until an audio was looked at before and after its job was made."""
    await eventually(lambda: upload.asked.count(recording.audio_id) == 2)


async def test_tasks_whose_messages_were_wiped_are_sent_again(
    replica: Replica, upload: Upload, messaging: Messaging, servers: LocalServers, rows: Rows
) -> None:
    jobs = [await replica.create(upload.record(slices=2)) for _ in range(3)]
    waiting = "SELECT task_id FROM job.tasks WHERE message_sequence IS NULL"
    await eventually(lambda: not rows(waiting))

    await servers.nats.kill()
    servers.nats.wipe()
    await servers.nats.start()

    await Worker(replica.tasks, messaging).do(6)
    for job in jobs:
        await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_jobs_that_are_made_while_nats_is_away_are_done_when_it_is_back(
    replica: Replica, upload: Upload, messaging: Messaging, servers: LocalServers
) -> None:
    await servers.nats.kill()
    job = await replica.create(upload.record(slices=2))
    await servers.nats.start()

    await Worker(replica.tasks, messaging).do(2)

    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_a_message_that_waits_is_not_sent_again(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    await replica.create(upload.record(slices=3))
    checked = (
        "SELECT task_id FROM job.tasks WHERE message_check_time > create_time + interval '1.5 s'"
    )
    await eventually(lambda: len(rows(checked)) == 3)

    counts = [row["dispatch_count"] for row in rows("SELECT dispatch_count FROM job.tasks")]
    assert counts == [1, 1, 1]


async def test_a_message_acked_by_mistake_is_sent_again(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=1))
    delivery = await eventually(lambda: worker._queue.next(timeout=0.5))

    await delivery.raw.ack()

    await worker.do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_slices_are_found_though_no_news_of_them_came(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    recording = upload.record(ready=False)
    job = await replica.create(recording)

    recording.cut(2)
    await worker.do(2)
    recording.finish()

    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_news_of_slices_are_followed_at_once(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(job_audio_poll_seconds=3600)
    await hears(replica, upload, messaging)
    recording = upload.record(ready=False)
    job = await replica.create(recording)

    recording.cut(1)
    recording.finish()
    await announce(messaging, recording)

    await Worker(replica.tasks, messaging).do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_what_audio_becomes_while_its_job_is_made_is_found_at_once(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = upload.record(ready=False)
    fetch = AudioSource.fetch

    async def overtaken(self: AudioSource, *asked: Any) -> Audio:
        found = await fetch(self, *asked)
        recording.finish()
        return found

    replica = await start_replica(job_audio_poll_seconds=3600)
    recording.cut(1)
    monkeypatch.setattr(AudioSource, "fetch", overtaken)
    job = await replica.create(recording)

    await Worker(replica.tasks, messaging).do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_news_of_audio_do_not_wait_for_audio_of_which_nothing_is_answered(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steno.job.audio._TIMEOUT_SECONDS", 600)
    replica = await start_replica(job_audio_poll_seconds=3600)
    await hears(replica, upload, messaging)
    silent, growing = [upload.record(ready=False) for _ in range(2)]
    for recording in (silent, growing):
        await replica.create(recording)
        await looked_at_twice(upload, recording)
        recording.cut(1)
    upload.silent[silent.audio_id] = asyncio.Event()

    await announce(messaging, silent)
    await eventually(lambda: upload.asked.count(silent.audio_id) == 3)
    await announce(messaging, growing)
    work = await Worker(replica.tasks, messaging).take()
    upload.silent[silent.audio_id].set()

    assert growing.audio_id in work.lease.slice.object_key


async def test_what_a_job_knows_already_is_not_asked_for_again(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(job_audio_poll_seconds=3600)
    await hears(replica, upload, messaging)
    recording = upload.record(slices=1, ready=False)
    await replica.create(recording)
    await looked_at_twice(upload, recording)

    for _ in range(5):
        await announce(messaging, recording)
    recording.cut(1)
    await announce(messaging, recording)
    await Worker(replica.tasks, messaging).do(2)

    # Before and after it was made, and of the second slice.
    assert upload.asked.count(recording.audio_id) == 3


async def test_a_job_waits_for_an_upload_service_that_is_away(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    recording = upload.record(ready=False)
    job = await replica.create(recording)

    await upload.stop()
    recording.cut(1)
    recording.finish()
    await upload.start()

    await worker.do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_two_replicas_send_each_event_once_and_none_never(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: Counter[tuple[str, int]] = Counter()
    publish = Messaging.publish

    async def counting(self: Messaging, subject: str, message: Any, **more: Any) -> int:
        # What is sent again because its ack was late is the same sending still.
        number = await publish(self, subject, message, **more)
        if isinstance(message, JobEventMessage):
            sent[message.event.job_id, message.event.revision] += 1
        return number

    monkeypatch.setattr(Messaging, "publish", counting)
    replicas = [await start_replica(), await start_replica()]
    worker = Worker(replicas[0].tasks, messaging)
    jobs = [await replicas[n % 2].create(upload.record(slices=2)) for n in range(10)]
    await worker.do(20)
    last = {
        job.job_id: (await replicas[0].in_state(job, pb.JOB_STATE_SUCCEEDED)).revision
        for job in jobs
    }
    wanted = {(job_id, n) for job_id, revision in last.items() for n in range(1, revision + 1)}
    await eventually(lambda: sent.keys() >= wanted)

    assert set(sent.values()) == {1}
    assert sent.keys() == wanted
    stream = (await messaging.connected()).jetstream(timeout=60)
    held = (await stream.stream_info(EVENTS, subjects_filter="steno.events.job.>")).state.subjects
    assert held == {f"steno.events.job.{job_id}": revision for job_id, revision in last.items()}


async def test_two_replicas_make_one_task_of_each_slice(
    start_replica: StartReplica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    replica, _ = await start_replica(), await start_replica()
    recordings = [upload.record(ready=False) for _ in range(4)]
    jobs = [await replica.create(recording) for recording in recordings]

    for recording in recordings:
        recording.cut(2)
        recording.finish()
        await announce(messaging, recording)
    await Worker(replica.tasks, messaging).do(8)

    for job in jobs:
        await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    assert len(rows("SELECT task_id FROM job.tasks")) == 8


async def test_a_replica_that_stops_sends_its_watchers_and_its_work_to_the_other(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    stopping, staying = await start_replica(), await start_replica()
    job = await stopping.create(upload.record(slices=2))
    worker = Worker(staying.tasks, messaging)
    work = await worker.take()
    watching = asyncio.create_task(stopping.log(job))
    await eventually(lambda: WATCHERS._value.get() == 1)

    await stopping.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watching
    await worker.complete(work)
    await worker.do(1)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await staying.in_state(job, pb.JOB_STATE_SUCCEEDED)
