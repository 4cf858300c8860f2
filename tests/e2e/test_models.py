"""Two real models on one platform: each job has the one that it asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from folders import server_folder
from platform_client import EXAMPLES, Client
from running_platform import run_services
from scoring import word_error_rate, words_of
from steno.local.supervisor import services
from steno.models import entry_of, store_at
from steno.v1 import job_pb2
from steno.v1.transcript_pb2 import RECOGNITION_TASK_TRANSLATE, RecognitionConfig, Transcript

GERMAN = Path(__file__).parent / "data" / "german.opus"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        store_at().find("base") is None,
        reason="there is no model base: make test-long pulls it",
    ),
]


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(server_folder())
        yield (await run_services(stack, services(["tiny.en", "base"], 1), folder)).client


async def transcribe(client: Client, file: Path, config: RecognitionConfig) -> Transcript:
    audio = await client.upload(file.name, file.read_bytes())
    job = await client.create_job(audio.audio_id, config)
    ended = await client.end_of(job.job_id)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    return await client.transcript(job.job_id)


async def test_a_language_that_nobody_names_is_detected(client: Client) -> None:
    transcript = await transcribe(client, GERMAN, RecognitionConfig(model="base"))

    said = words_of(GERMAN.with_suffix(".txt").read_text())
    base = entry_of("base")
    assert base
    assert transcript.language_code == "de"
    assert word_error_rate(said, words_of(transcript.text)) < 0.2
    assert (transcript.model.name, transcript.model.revision) == ("base", base.revision)


async def test_german_is_translated_to_english(client: Client) -> None:
    config = RecognitionConfig(model="base", task=RECOGNITION_TASK_TRANSLATE)

    transcript = await transcribe(client, GERMAN, config)

    assert "my name is thomas" in transcript.text.lower()
    assert "from germany" in transcript.text.lower()


async def test_a_job_that_names_no_model_gets_the_first(client: Client) -> None:
    story = EXAMPLES / "lighthouse.opus"

    transcript = await transcribe(client, story, RecognitionConfig())

    said = words_of(story.with_suffix(".txt").read_text())
    assert transcript.model.name == "tiny.en"
    assert word_error_rate(said, words_of(transcript.text)) < 0.06
