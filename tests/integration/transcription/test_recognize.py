"""Recognize over real gRPC, with the built-in model and the real sandbox."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from steno.audio import encode_slice, from_float
from steno.platform.client import open_channel
from steno.platform.errors import Failure, read_failure
from steno.platform.server import GrpcServer
from steno.platform.settings import ProcessSettings
from steno.transcript import SAMPLE_RATE, Options, Segment
from steno.transcription.engine import Engine, Line, Samples
from steno.transcription.servicer import SERVICES, STATUS_OF, TranscriptionServicer
from steno.transcription.short import ShortRecognizer
from steno.transcription.threaded import ThreadedEngine
from steno.transcription.whisper import FasterWhisper
from steno.v1 import transcription_pb2 as pb
from steno.v1.transcript_pb2 import (
    RECOGNITION_QUALITY_FAST,
    RECOGNITION_TASK_TRANSCRIBE,
    RECOGNITION_TASK_TRANSLATE,
    RecognitionConfig,
)
from steno.v1.transcription_pb2_grpc import (
    TranscriptionServiceStub,
    add_TranscriptionServiceServicer_to_server,
)
from waiting import eventually

from .conftest import EXAMPLES, SteppedEngine

if TYPE_CHECKING:
    from steno.v1.transcription_pb2_grpc import TranscriptionServiceAsyncStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@dataclass
class Client:
    """A client, and the engine behind its server."""

    engine: Engine
    stub: "TranscriptionServiceAsyncStub"

    async def recognize(
        self, content: bytes, config: RecognitionConfig | None = None
    ) -> pb.RecognizeResponse:
        request = pb.RecognizeRequest(content=content, config=config)
        return await self.stub.Recognize(request, timeout=60)

    async def failure(self, content: bytes, config: RecognitionConfig | None = None) -> Failure:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.recognize(content, config)
        return read_failure(caught.value)


@asynccontextmanager
async def serving(model: FasterWhisper, max_calls: int = 16) -> AsyncIterator[Client]:
    settings = ProcessSettings(listen="127.0.0.1:0", shutdown_grace_seconds=1)
    server = GrpcServer(settings, SERVICES, STATUS_OF)
    async with ThreadedEngine(model, max_calls + 1) as engine:
        add_TranscriptionServiceServicer_to_server(
            TranscriptionServicer(engine, ShortRecognizer(engine, max_calls, max_windows=1)),
            server.server,
        )
        async with server, open_channel(f"127.0.0.1:{server.port}", retries=False) as channel:
            yield Client(engine, TranscriptionServiceStub(channel))


@pytest.fixture
async def client(engine: FasterWhisper) -> AsyncIterator[Client]:
    async with serving(engine) as client:
        yield client


def wav(samples: Samples) -> bytes:
    return encode_slice(from_float(samples))


def fields(failure: Failure) -> Sequence[str]:
    return [violation.field for violation in failure.violations]


async def test_what_is_dropped_can_be_had_with_the_numbers_that_condemned_it(
    client: Client, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the model doubted all that it hears.
    monkeypatch.setattr("steno.transcript.model.NO_SPEECH_THRESHOLD", -1.0)
    monkeypatch.setattr("steno.transcript.model.LOGPROB_THRESHOLD", 0.0)
    content = wav(speech[: 12 * SAMPLE_RATE])

    silent = await client.recognize(content)
    request = pb.RecognizeRequest(content=content, include_dropped=True)
    told = await client.stub.Recognize(request, timeout=60)

    assert (silent.text, list(silent.segments), list(silent.dropped_segments)) == ("", [], [])
    assert (told.text, list(told.segments)) == ("", [])
    assert told.dropped_segments[0].text.startswith(" It was a")
    assert all(segment.avg_logprob < 0 for segment in told.dropped_segments)


async def test_a_file_is_recognised_at_once(client: Client, speech: Samples) -> None:
    config = RecognitionConfig(enable_word_time_offsets=True)

    response = await client.recognize(wav(speech[: 20 * SAMPLE_RATE]), config)

    assert "November" in response.text
    assert response.language_code == "en"
    assert response.audio_duration.ToTimedelta().total_seconds() == 20
    assert response.model.name == "builtin"
    assert not response.audio_truncated
    assert [segment.index for segment in response.segments] == [*range(len(response.segments))]
    for segment in response.segments:
        assert "".join(word.word for word in segment.words).strip() == segment.text.strip()
        assert segment.language_code == "en"


async def test_the_options_really_used_come_back(client: Client, speech: Samples) -> None:
    config = RecognitionConfig(language_code="auto", prompt="A story.", hotwords=["village"])

    response = await client.recognize(wav(speech[: 5 * SAMPLE_RATE]), config)

    assert response.config == RecognitionConfig(
        model="builtin",
        language_code="en",
        task=RECOGNITION_TASK_TRANSCRIBE,
        hotwords=["village"],
        prompt="A story.",
        vad_filter=True,
        quality=RECOGNITION_QUALITY_FAST,
    )


@pytest.mark.parametrize("name", ["numbers.flac", "telephone.mp3", "week.ogg"])
async def test_any_format_of_an_upload_is_taken(client: Client, name: str) -> None:
    response = await client.recognize((EXAMPLES / name).read_bytes())

    assert response.text


async def test_silence_has_no_text(client: Client) -> None:
    response = await client.recognize(wav(np.zeros(3 * SAMPLE_RATE, np.float32)))

    assert not response.segments
    assert response.text == ""


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (RecognitionConfig(language_code="de"), "config.language_code"),
        (RecognitionConfig(language_code="English"), "config.language_code"),
        (RecognitionConfig(task=RECOGNITION_TASK_TRANSLATE), "config.task"),
        (RecognitionConfig(task=17), "config.task"),  # type: ignore[arg-type]
        (RecognitionConfig(multilingual=True), "config.multilingual"),
        (RecognitionConfig(prompt="x" * 2001), "config.prompt"),
        (RecognitionConfig(prompt="harbour " * 240), "config.prompt"),
        (RecognitionConfig(prompt="<|nospeech|>"), "config.prompt"),
        (RecognitionConfig(hotwords=["x" * 101]), "config.hotwords[0]"),
        (RecognitionConfig(hotwords=["word"] * 501), "config.hotwords"),
        (RecognitionConfig(hotwords=["the long way home"] * 100), "config.hotwords"),
        (RecognitionConfig(hotwords=["<|endoftext|>"]), "config.hotwords"),
        (RecognitionConfig(model="m" * 256), "config.model"),
    ],
)
async def test_each_wrong_field_is_named(
    client: Client, speech: Samples, config: RecognitionConfig, field: str
) -> None:
    failure = await client.failure(wav(speech[:SAMPLE_RATE]), config)

    assert failure.code == INVALID
    assert fields(failure) == [field]


async def test_several_wrong_fields_are_all_named(client: Client, speech: Samples) -> None:
    config = RecognitionConfig(task=RECOGNITION_TASK_TRANSLATE, language_code="de")

    failure = await client.failure(wav(speech[:SAMPLE_RATE]), config)

    assert fields(failure) == ["config.language_code", "config.task"]


async def test_a_model_of_another_worker_is_not_found(client: Client, speech: Samples) -> None:
    failure = await client.failure(wav(speech[:SAMPLE_RATE]), RecognitionConfig(model="large-v3"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_SERVED")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\0", "UNSUPPORTED_FORMAT"),
        (b"garbage" * 1000, "UNSUPPORTED_FORMAT"),
        (Path(__file__).read_bytes(), "UNSUPPORTED_FORMAT"),
        (encode_slice(np.zeros(0, np.int16)), "NO_SAMPLES"),
    ],
)
async def test_bytes_that_are_no_audio_are_rejected(
    client: Client, content: bytes, why: str
) -> None:
    failure = await client.failure(content)

    assert (failure.code, failure.reason) == (INVALID, "AUDIO_REJECTED")
    assert failure.metadata == {"reason": why}


async def test_a_call_without_audio_names_the_field(client: Client) -> None:
    assert fields(await client.failure(b"")) == ["content"]


async def test_a_minute_is_taken_and_more_is_not(client: Client, speech: Samples) -> None:
    minute = await client.recognize(wav(speech[: 60 * SAMPLE_RATE]))
    failure = await client.failure(wav(speech[: 61 * SAMPLE_RATE]))

    assert minute.audio_duration.seconds == 60
    assert (failure.code, failure.reason) == (INVALID, "AUDIO_TOO_LONG")


async def test_a_file_that_ends_in_the_middle_says_so(client: Client, speech: Samples) -> None:
    whole = wav(speech[: 10 * SAMPLE_RATE])

    response = await client.recognize(whole[: len(whole) // 2])

    assert response.audio_truncated
    assert response.segments


async def test_the_models_are_listed(client: Client, engine: FasterWhisper) -> None:
    (model,) = (await client.stub.ListModels(pb.ListModelsRequest())).models

    assert model.name == "builtin"
    assert model.revision == engine.model.revision
    assert model.compute_type.startswith("int8")
    assert model.device == "cpu"
    assert list(model.language_codes) == ["en"]
    assert model.is_default


async def test_a_call_goes_ahead_of_a_slice_that_runs(
    stepped: SteppedEngine, speech: Samples
) -> None:
    async with serving(stepped) as client:
        decoded: list[Segment] = []

        async def work_on_slice() -> None:
            recognition = client.engine.recognition(speech, Line.JOB)
            async for segment in recognition.segments(Options(language_code="en")):
                decoded.append(segment)

        working = asyncio.create_task(work_on_slice())
        await eventually(lambda: stepped.steps_begun == 1)
        calling = asyncio.create_task(client.recognize(wav(speech[: 5 * SAMPLE_RATE])))
        await eventually(lambda: stepped.batcher.waiting == 1)
        while not calling.done():  # some windows are decoded twice
            begun = stepped.steps_begun
            stepped.go_on(1)
            await eventually(lambda: calling.done() or stepped.steps_begun > begun)  # noqa: B023
        await calling
        done_before_the_call = list(decoded)
        stepped.go_on(10_000)
        await working

    assert all(segment.end <= 30 for segment in done_before_the_call)
    assert decoded[-1].end > 30


async def test_too_many_calls_are_told_when_to_come_again(
    stepped: SteppedEngine, speech: Samples
) -> None:
    content = wav(speech[: 10 * SAMPLE_RATE])
    async with serving(stepped, max_calls=2) as client:
        accepted = [asyncio.create_task(client.recognize(content)) for _ in range(2)]
        await eventually(lambda: stepped.steps_begun == 1 and stepped.batcher.waiting == 1)
        failure = await client.failure(content)
        stepped.go_on(10_000)
        responses = await asyncio.gather(*accepted)

    assert failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_delay is not None
    assert all(response.text for response in responses)


async def test_a_call_that_is_given_up_leaves_the_queue(
    stepped: SteppedEngine, speech: Samples
) -> None:
    content = wav(speech[: 10 * SAMPLE_RATE])
    async with serving(stepped, max_calls=2) as client:
        running = asyncio.create_task(client.recognize(content))
        await eventually(lambda: stepped.steps_begun == 1)
        waiting = asyncio.create_task(client.recognize(content))
        await eventually(lambda: stepped.batcher.waiting == 1)
        waiting.cancel()
        await eventually(lambda: stepped.batcher.waiting == 0)
        next_call = asyncio.create_task(client.recognize(content))
        stepped.go_on(10_000)

        assert (await running).text
        assert (await next_call).text
