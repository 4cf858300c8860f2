"""Anything may be killed at any moment: no accepted work is lost, no result appears twice."""

from __future__ import annotations

import asyncio
import shutil

import numpy as np
import pytest

from live_sessions import (
    Producer,
    Samples,
    acknowledged,
    chunks_of,
    closed,
    file_of,
    finals,
    opened,
    text_in,
    told,
)
from platform_client import Client
from recordings import RATE, samples_of, wav
from running_platform import RunningPlatform
from scoring import word_error_rate, words_of
from steno.platform.wellknown import duration_of, seconds_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import job_pb2, transcript_pb2, upload_pb2
from waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # each wait has a limit of its own

SECONDS = 4
LAST_SECONDS = 56


@pytest.fixture(scope="module")
def speech() -> Samples:
    return samples_of("demo.opus")[: 18 * RATE]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Ten recordings; the last is just long enough for two slices."""
    speech = samples_of("ten-minutes.opus")
    length = SECONDS * RATE
    parts = [speech[number * length :][:length] for number in range(9)]
    parts.append(speech[9 * length :][: LAST_SECONDS * RATE])
    return {f"part-{number}.wav": wav(part) for number, part in enumerate(parts)}


@pytest.fixture(scope="module")
async def undisturbed(
    two_workers: RunningPlatform, files: dict[str, bytes]
) -> dict[str, transcript_pb2.Transcript]:
    return await transcribe_all(two_workers.client, files, "undisturbed")


async def transcribe_all(
    client: Client, files: dict[str, bytes], round: str
) -> dict[str, transcript_pb2.Transcript]:
    transcripts = await asyncio.gather(
        *(client.transcribe(name, data, labels={"round": round}) for name, data in files.items())
    )
    return dict(zip(files, transcripts, strict=True))


def said(transcripts: dict[str, transcript_pb2.Transcript]) -> dict[str, list[str]]:
    """What a user sees: times and texts."""
    return {
        name: [
            f"{segment.start_offset.ToMilliseconds()} {segment.end_offset.ToMilliseconds()}"
            f" {segment.text}"
            for segment in transcript.segments
        ]
        for name, transcript in transcripts.items()
    }


async def jobs_of(
    client: Client, round: str, *states: job_pb2.JobState.ValueType
) -> list[job_pb2.Job]:
    """Jobs of a round, in these states or in any."""
    request = job_pb2.ListJobsRequest(page_size=1000, labels={"round": round})
    found = await client.patiently(lambda: client.jobs.ListJobs(request, timeout=20))
    return [job for job in found.jobs if job.state in states or not states]


def strike(platform: RunningPlatform, victims: tuple[str, ...]) -> None:
    """Kills them all. NATS loses its data too: Postgres has all that counts."""
    for victim in victims:
        platform.kill(victim)
    data = platform.platform.servers.nats.folder / "data"
    while "nats" in victims and data.exists():  # what dies may still write a file
        shutil.rmtree(data, ignore_errors=True)  # it is not started again before this returns


@pytest.mark.parametrize(
    "victims",
    [
        ("upload", "nats", "transcription", "transcription-2"),
        ("prepare", "postgres", "job", "s3"),
    ],
)
async def test_ten_files_succeed_though_four_processes_are_killed_twice(
    harmed: RunningPlatform,
    files: dict[str, bytes],
    undisturbed: dict[str, transcript_pb2.Transcript],
    victims: tuple[str, ...],
) -> None:
    client, nine, one = harmed.client, f"nine {victims}", f"one {victims}"
    unfinished = (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
    last = max(files)
    others = {name: data for name, data in files.items() if name != last}

    working = asyncio.create_task(transcribe_all(client, others, nine))
    await eventually(lambda: jobs_of(client, nine, *unfinished))
    strike(harmed, victims)
    await eventually(lambda: jobs_of(client, nine, job_pb2.JOB_STATE_SUCCEEDED), within=120)
    for victim in victims:
        await harmed.runs(victim)
    late = asyncio.create_task(transcribe_all(client, {last: files[last]}, one))
    await eventually(lambda: jobs_of(client, one, *unfinished))
    strike(harmed, victims)
    transcripts = await working | await late

    assert said(transcripts) == said(undisturbed)
    succeeded = [
        job.display_name
        for round in (nine, one)
        for job in await jobs_of(client, round, job_pb2.JOB_STATE_SUCCEEDED)
    ]
    assert sorted(succeeded) == sorted(files)


async def test_a_watcher_that_comes_back_sees_each_revision_once(
    harmed: RunningPlatform, files: dict[str, bytes]
) -> None:
    client = harmed.client
    audio = await client.upload("part-9.wav", files["part-9.wav"])
    job = await client.create_job(audio.audio_id)
    seen: list[job_pb2.JobEvent] = []

    async def watch(most: int) -> None:
        request = job_pb2.WatchJobRequest(
            job_id=job.job_id, after_revision=seen[-1].revision if seen else 0
        )
        stream = client.jobs.WatchJob(request)
        async for response in stream:
            if response.HasField("event"):
                seen.append(response.event)
                most -= 1
            if most == 0:
                stream.cancel()
                return

    await watch(most=2)
    harmed.kill("job")
    await client.patiently(lambda: watch(most=2))
    await client.patiently(lambda: watch(most=1000))

    assert [event.revision for event in seen] == [*range(1, len(seen) + 1)]
    assert seen[-1].state_changed.state == job_pb2.JOB_STATE_SUCCEEDED
    transcript = await client.transcript(job.job_id)
    about = upload_pb2.GetAudioRequest(audio_id=audio.audio_id)
    assert (await client.uploads.GetAudio(about)).audio.slice_count == 2
    watched = [s for event in seen for s in event.segments_added.segments]
    assert watched == list(transcript.segments)


async def test_a_session_outlives_the_death_of_its_server_and_of_nats(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client, part = harmed.client, speech[: 14 * RATE]
    session_id = await opened(client, interim_results=False)
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))
    producer = Producer([client.sessions], session_id)

    chunks = chunks_of(part)
    thirds = (chunks[:24], chunks[24:48], chunks[48:])
    for victim, third in zip(("concatenation", "nats", "concatenation"), thirds, strict=True):
        killed = asyncio.Event()
        sending = asyncio.create_task(
            producer.send(third, pause=0.05, breaks_after=5, until=killed.is_set)
        )
        await acknowledged(producer, third[0][0] + 12, sending)
        harmed.kill(victim)
        killed.set()
        await harmed.runs(victim)
        await sending
    ended = await closed(client, session_id)
    await asyncio.wait_for(watching, 120)

    assert ended.gap_duration.seconds == 0
    assert np.array_equal(await file_of(client, session_id), part)
    revisions = [r.event.revision for r in responses if r.HasField("event")]
    assert revisions == [*range(1, len(revisions) + 1)]
    # Nothing is heard twice, and nothing is left out.
    assert (await client.end_of(ended.job_id)).state == job_pb2.JOB_STATE_SUCCEEDED
    by_job = words_of((await client.transcript(ended.job_id)).text)
    assert word_error_rate(by_job, text_in(finals(responses))) < 0.15


async def test_a_recording_goes_on_while_transcription_is_away_and_is_heard_afterwards(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client = harmed.client
    session_id = await opened(client, final_job=False)
    part = speech[: 12 * RATE]
    harmed.kill("transcription")

    await Producer([client.sessions], session_id).send(chunks_of(part))
    assert np.array_equal(await file_of(client, session_id), part)
    await harmed.runs("transcription")
    await closed(client, session_id)

    responses = await told(client, session_id, [])
    assert len(text_in(finals(responses))) > 10


async def test_a_recording_goes_on_while_transcription_is_slow_and_results_say_how_late(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client = harmed.client
    # Utterances end after 2.7, 7, 13, 15 and 18 seconds.
    session_id = await opened(
        client,
        endpointing_silence=duration_of(0.3),
        interim_results=False,
        final_job=False,
    )
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))
    producer = Producer([client.sessions], session_id)
    chunks = chunks_of(speech)
    await producer.send(chunks[:25], pause=0.05)
    await eventually(lambda: finals(responses))

    with harmed.paused("transcription"):
        before = len(responses)
        await producer.send(chunks[25:])  # all are acknowledged
        statuses = await eventually(lambda: statuses_up_to_the_end(responses, speech))
    await closed(client, session_id)
    await asyncio.wait_for(watching, 60)

    assert np.array_equal(await file_of(client, session_id), speech)
    behind = [
        seconds_of(status.duration) - seconds_of(status.transcribed_duration) for status in statuses
    ]
    assert behind[-1] == max(behind) > 10
    late = [seconds_of(result.lag) for result in finals(responses[before:])]
    assert late == sorted(late, reverse=True)
    assert late[0] > 5
    assert late[-1] == 0
    ends = [seconds_of(result.segment.end_offset) for result in finals(responses)]
    assert len(ends) >= 4
    assert ends[-1] > 16


def statuses_up_to_the_end(
    responses: list[pb.WatchSessionResponse], samples: Samples
) -> list[pb.SessionStatus]:
    """How far a viewer was told that a session is, once it has all samples; before that, none."""
    told = [response.status for response in responses if response.HasField("status")]
    has_all = bool(told) and seconds_of(told[-1].duration) == len(samples) / RATE
    return told if has_all else []
