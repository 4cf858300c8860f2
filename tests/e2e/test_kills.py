"""Anything may be killed at any moment: no accepted work is lost, no result appears twice."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from platform_client import Client
from recordings import RATE, samples_of, wav
from running_platform import RunningPlatform
from steno.v1 import job_pb2, transcript_pb2, upload_pb2
from waiting import eventually

pytestmark = pytest.mark.timeout(600)  # each wait has a limit of its own

SECONDS = 4
LAST_SECONDS = 56


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


@pytest.mark.long
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
