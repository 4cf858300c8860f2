"""The whole platform before a server of others, which is away for a while and loses no word."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import count

from platform_client import EXAMPLES
from running_platform import run_platform
from speech_server import Asked, Reply, speech_server, told
from steno.v1 import job_pb2, transcript_pb2
from waiting import eventually


async def test_a_job_is_done_by_a_server_that_is_gone_and_comes_back() -> None:
    numbers = count(1)

    def counted(asked: Asked) -> Reply:
        return Reply(body=told(f"Number {next(numbers)}.", asked.seconds, model="parrot@r7"))

    with speech_server() as server:
        server.otherwise = counted
        server.script.append(Reply(hangs=True))
        environment = {
            "STENO_ENGINE": "remote",
            "STENO_REMOTE_URL": server.url,
            "STENO_REMOTE_MODEL": "parrot-1",
            "STENO_REMOTE_API_KEY": "sk-secret",
            "STENO_REMOTE_CONCURRENCY": "1",
        }
        async with AsyncExitStack() as stack:
            platform = await run_platform(stack, workers=1, **environment)
            client = platform.client
            audio = await client.upload("demo.opus", (EXAMPLES / "demo.opus").read_bytes())
            config = transcript_pb2.RecognitionConfig(enable_word_time_offsets=True)
            job = await client.create_job(audio.audio_id, config)
            await eventually(lambda: server.asked)
            server.stop()
            server.start()
            job = await client.end_of(job.job_id)
            transcript = await client.transcript(job.job_id)

    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    words = [word.word for segment in transcript.segments for word in segment.words]
    assert words[:2] == [" Number", " 1."]
    assert transcript.language_code == "en"
    model = transcript.model
    assert (model.revision, model.compute_type) == ("parrot@r7", "remote")
    assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer sk-secret"}
