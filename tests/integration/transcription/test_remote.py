"""A worker before a server of others: no slice is lost, whatever the server does.

On real NATS and S3, and against a real HTTP server.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from speech_server import Asked, Reply, SpeechServer, speech_server, told
from steno.audio import encode_slice, from_float
from steno.platform.client import open_channel
from steno.platform.errors import Failure, read_failure
from steno.platform.server import GrpcServer
from steno.platform.settings import ProcessSettings
from steno.transcript import SAMPLE_RATE
from steno.transcription.answers import Answer
from steno.transcription.domain import NotReady
from steno.transcription.engine import Engine, Samples
from steno.transcription.remote import (
    MOST_ANSWER_BYTES,
    SILENCE,
    Failed,
    RemoteEngine,
    RemoteRecognition,
    Request,
)
from steno.transcription.servicer import (
    SERVICES,
    STATUS_OF,
    TranscriptionServicer,
    WindowServicer,
)
from steno.transcription.short import ShortRecognizer
from steno.v1 import job_pb2 as pb
from steno.v1 import transcription_pb2
from steno.v1.transcript_pb2 import RECOGNITION_TASK_TRANSLATE, RecognitionConfig
from steno.v1.transcription_pb2_grpc import (
    TranscriptionServiceStub,
    WindowServiceStub,
    add_TranscriptionServiceServicer_to_server,
    add_WindowServiceServicer_to_server,
)
from waiting import eventually

from .conftest import Platform

if TYPE_CHECKING:
    from steno.v1.transcription_pb2_grpc import (
        TranscriptionServiceAsyncStub,
        WindowServiceAsyncStub,
    )

KEY = "sk-very-secret"
ENGLISH = RecognitionConfig(language_code="en", enable_word_time_offsets=True)


@pytest.fixture
def server() -> Iterator[SpeechServer]:
    with speech_server() as server:
        yield server


@asynccontextmanager
async def remote(
    server: SpeechServer, name: str = "parrot", *, timeout_seconds: float = 60
) -> AsyncIterator[RemoteEngine]:
    async with RemoteEngine(
        name,
        server.url,
        "parrot-1",
        KEY,
        concurrency=2,
        timeout_seconds=timeout_seconds,
        first_pause_seconds=0.05,
    ) as engine:
        yield engine


@pytest.fixture
async def engine(server: SpeechServer, platform: Platform) -> AsyncIterator[RemoteEngine]:
    """Its queue is the platform's."""
    async with remote(server, platform.model) as engine:
        await eventually(lambda: is_ready(engine))
        yield engine


async def is_ready(engine: Engine) -> bool:
    try:
        await engine.ready()
    except NotReady:
        return False
    return True


async def test_a_slice_is_sent_and_its_transcript_kept(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    task = await platform.offer(speech[: 10 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    (asked,) = server.asked
    assert asked.path == "/v1/audio/transcriptions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert np.array_equal(asked.samples, from_float(speech[: 10 * SAMPLE_RATE]))
    assert asked.fields == {
        "model": ["parrot-1"],
        "response_format": ["verbose_json"],
        "temperature": ["0"],
        "timestamp_granularities[]": ["segment", "word"],
        "language": ["en"],
    }
    (transcript,) = task.transcripts
    assert task.text == " It was a cold day."
    assert [word.word for word in transcript.segments[0].words] == [
        " It", " was", " a", " cold", " day.",
    ]  # fmt: skip
    model = transcript.model
    assert (model.name, model.revision) == (platform.model, "parrot@r7")
    assert (model.compute_type, model.device) == ("remote", "remote")
    assert transcript.language_code == "en"
    assert transcript.coverage.speech_duration.seconds >= 5
    assert not transcript.coverage.gaps
    assert transcript.model_time.ToTimedelta().total_seconds() > 0


async def test_vocabulary_and_prompt_are_sent_as_one_prompt(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    config = RecognitionConfig(language_code="en", hotwords=["Ada", "Zuse"], prompt="Good day.")
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], config)

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert server.asked[0].fields["prompt"] == ["Ada, Zuse. Good day."]
    assert server.asked[0].fields["timestamp_granularities[]"] == ["segment"]
    assert not task.transcripts[0].segments[0].words


async def test_the_language_is_the_servers_where_none_is_asked_for_and_one_request_is_enough(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], RecognitionConfig())

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert "language" not in server.asked[0].fields
    assert len(server.asked) == 1
    assert task.transcripts[0].language_code == platform.jobs.language == "en"


async def test_a_slice_whose_job_has_another_language_is_sent_again_with_that(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    platform.jobs.language = "de"
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], RecognitionConfig())

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert [asked.fields.get("language") for asked in server.asked] == [None, ["de"]]
    assert task.transcripts[0].language_code == "de"


async def test_speech_that_gives_no_text_is_a_gap(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    server.otherwise = lambda asked: Reply(body=told("It was a cold day.", 3.0))
    task = await platform.offer(speech[: 20 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    coverage = task.transcripts[0].coverage
    assert coverage.gap_duration.seconds > 5
    parts = (coverage.speech_duration, coverage.silence_duration, coverage.gap_duration)
    assert sum(part.ToTimedelta().total_seconds() for part in parts) == 20


async def test_silence_is_not_sent(
    platform: Platform, engine: RemoteEngine, server: SpeechServer
) -> None:
    task = await platform.offer(np.zeros(5 * SAMPLE_RATE, np.float32), ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert server.asked == []
    assert task.transcripts[0].coverage.silence_duration.seconds == 5


@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}),
        Reply(503, b"no backend", {"Retry-After": "1"}),
    ],
)
async def test_a_busy_server_is_asked_again_when_it_wishes(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples, reply: Reply
) -> None:
    server.script.extend([reply] * 2)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)
    began = time.monotonic()

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert time.monotonic() - began >= 2
    assert (task.attempt, task.failures, len(server.asked)) == (1, [], 3)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(200, b"<html>"),
        Reply(200, b"a" * (MOST_ANSWER_BYTES + 1)),
        Reply(200, b"[" * 100_000),
        Reply(200, headers={"Content-Encoding": "gzip"}),
        Reply(cuts=True),
        Reply(502),
    ],
    ids=["500", "html", "long", "deep", "packed", "cut", "502"],
)
async def test_what_may_pass_is_tried_again_and_the_slice_does_not_fail(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples, reply: Reply
) -> None:
    server.script.extend([reply] * 2)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert (task.attempt, task.failures, len(server.asked)) == (1, [], 3)


async def test_a_server_that_is_gone_is_waited_for_with_the_lease_kept(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    platform.jobs.lease_seconds = 1
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)
    server.script.append(Reply(hangs=True))

    async with platform.worker_with(engine):
        await eventually(lambda: server.asked)
        server.stop()
        await eventually(lambda: len(task.renewals) > 20)
        assert not await is_ready(engine)
        server.start()
        await eventually(lambda: task.state == "DONE")

    assert (task.attempt, task.failures) == (1, [])
    assert await is_ready(engine)


async def test_a_slice_that_the_server_fails_at_again_and_again_fails_once(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    server.otherwise = lambda asked: Reply(500, {"error": "CUDA error"})
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_RETRYABLE
    assert "the server answered 500: CUDA error" in task.failures[0].message


async def test_a_slice_that_breaks_every_connection_fails_once_if_the_server_answers_others(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    server.otherwise = lambda asked: Reply(cuts=True)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_RETRYABLE
    assert "the connection broke" in task.failures[0].message
    assert len(server.asked) == 4


async def test_a_reason_with_characters_that_can_not_be_sent_is_told_without_them(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    server.script.append(Reply(400, {"error": "no\0 \ud83d"}))
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].message == "the server answered 400: no ?"


async def test_a_slice_that_waits_long_for_its_turn_at_the_server_is_not_stopped(
    platform: Platform, engine: RemoteEngine, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    covering = RemoteRecognition.cover

    async def cover(self: RemoteRecognition, *rest: Any) -> Any:
        self.model_seconds = 100 * self.audio_seconds + 1
        await asyncio.sleep(1)
        return await covering(self, *rest)

    monkeypatch.setattr(RemoteRecognition, "cover", cover)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.state == "DONE")

    assert task.failures == []


async def test_the_server_is_asked_again_after_any_error(server: SpeechServer) -> None:
    async with remote(server) as engine:
        asking = engine._posted
        tries = 0

        async def posted(request: Request) -> Answer:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ZeroDivisionError
            return await asking(request)

        engine._posted = posted  # type: ignore[method-assign]
        await eventually(lambda: is_ready(engine))

    assert tries == 3


async def test_a_key_is_not_shown_where_a_text_is_cut(
    server: SpeechServer, speech: Samples
) -> None:
    text = "x" * 490 + KEY
    server.script.append(Reply(500, {"error": text}))
    async with remote(server) as engine:
        with pytest.raises(Failed) as caught:
            await engine.request(Request(speech[:SAMPLE_RATE], "en", "", False))

    assert KEY[:6] not in str(caught.value)
    assert len(str(caught.value)) <= 500


async def test_a_key_that_can_not_be_sent_is_not_shown(server: SpeechServer) -> None:
    async with RemoteEngine(
        "parrot", server.url, "parrot-1", f"{KEY}\n", concurrency=1, timeout_seconds=60
    ) as engine:
        with pytest.raises(NotReady) as caught:
            await engine.request(SILENCE)

    assert str(caught.value) == "the request can't be sent: LocalProtocolError"
    assert caught.value.__suppress_context__


async def test_a_slice_that_takes_too_long_fails_once_if_the_server_answers_others(
    platform: Platform, server: SpeechServer, speech: Samples
) -> None:
    server.otherwise = lambda asked: Reply(hangs=True)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with (
        remote(server, platform.model, timeout_seconds=1) as engine,
        platform.worker_with(engine),
    ):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_RETRYABLE
    assert "no answer in 1 s" in task.failures[0].message
    assert len(server.asked) == 4


async def test_a_server_that_fails_at_silence_too_is_waited_for(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    well = server.otherwise
    server.otherwise = server.silence = lambda asked: Reply(500)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: len(server.asked) > 4)
        assert not await is_ready(engine)
        server.silence = lambda asked: Reply()
        server.otherwise = well
        await eventually(lambda: task.state == "DONE")

    assert (task.attempt, task.failures) == (1, [])


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_what_the_server_refuses_fails_for_good_and_says_why(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples, status: int
) -> None:
    server.script.append(Reply(status, {"error": {"message": "Unsupported language"}}))
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_PERMANENT
    assert task.failures[0].message == f"the server answered {status}: Unsupported language"
    assert len(server.asked) == 1


async def test_a_refusal_of_silence_too_is_no_verdict_about_the_slice(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    well = server.otherwise
    server.otherwise = server.silence = lambda asked: Reply(400, {"error": "no verbose_json"})
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)
        assert not await is_ready(engine)
        server.silence = lambda asked: Reply()
        server.otherwise = well
        await eventually(lambda: task.state == "DONE")

    assert {each.failure for each in task.failures} == {pb.TASK_FAILURE_HANDED_BACK}


@pytest.mark.parametrize("status", [401, 403, 404, 307])
async def test_a_wrong_configuration_gives_tasks_back_until_it_is_right(
    platform: Platform,
    engine: RemoteEngine,
    server: SpeechServer,
    speech: Samples,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    well = server.otherwise
    wrong = Reply(status, {"error": {"message": f"Incorrect API key: {KEY}"}})
    server.otherwise = server.silence = lambda asked: wrong
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)
        assert not await is_ready(engine)
        tries = len(server.asked)
        await eventually(lambda: server.silences > 4)
        assert len(server.asked) == tries
        server.silence = lambda asked: Reply()
        server.otherwise = well
        await eventually(lambda: task.state == "DONE")

    assert {each.failure for each in task.failures} == {pb.TASK_FAILURE_HANDED_BACK}
    assert f"the server answered {status}: Incorrect API key: ***" in caplog.text
    assert KEY not in caplog.text


async def test_a_task_that_is_cancelled_closes_its_request(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    server.script.append(Reply(hangs=True))
    cancelled = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine):
        await eventually(lambda: server.asked)
        cancelled.state = "CANCELLED"
        await eventually(lambda: server.left == 1)
        following = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)
        await eventually(lambda: following.state == "DONE")

    assert not cancelled.failures


async def test_a_worker_that_stops_gives_back_what_waits_for_the_server(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    server.otherwise = lambda asked: Reply(429, headers={"Retry-After": "60"})
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine, grace_seconds=60) as worker:
        await eventually(lambda: server.asked)
        await asyncio.wait_for(worker.stop(), 20)

    assert [each.failure for each in task.failures] == [pb.TASK_FAILURE_HANDED_BACK]


async def test_a_worker_that_stops_gives_back_what_the_server_turns_away_then(
    platform: Platform, engine: RemoteEngine, server: SpeechServer, speech: Samples
) -> None:
    stops = threading.Event()

    def busy(asked: Asked) -> Reply:
        stops.wait()
        return Reply(429, headers={"Retry-After": "600"})

    server.otherwise = busy
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], ENGLISH)

    async with platform.worker_with(engine, grace_seconds=600) as worker:
        await eventually(lambda: server.asked)
        stopping = asyncio.create_task(worker.stop())
        await eventually(worker.worker._ending.is_set)
        stops.set()
        await stopping

    assert [each.failure for each in task.failures] == [pb.TASK_FAILURE_HANDED_BACK]


async def test_what_a_server_cannot_be_asked_for_is_refused(
    platform: Platform, engine: RemoteEngine, speech: Samples
) -> None:
    task = await platform.offer(speech, RecognitionConfig(task=RECOGNITION_TASK_TRANSLATE))

    async with platform.worker_with(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_PERMANENT
    assert "config.task" in task.failures[0].message


@asynccontextmanager
async def serving(
    engine: Engine,
) -> AsyncIterator[tuple[TranscriptionServiceAsyncStub, WindowServiceAsyncStub]]:
    settings = ProcessSettings(listen="127.0.0.1:0", shutdown_grace_seconds=1)
    server = GrpcServer(settings, SERVICES, STATUS_OF, checks=[engine.ready])
    short = ShortRecognizer(engine, 4, 4)
    add_TranscriptionServiceServicer_to_server(TranscriptionServicer(engine, short), server.server)
    add_WindowServiceServicer_to_server(WindowServicer(engine, short), server.server)
    async with server, open_channel(f"127.0.0.1:{server.port}", retries=False) as channel:
        yield TranscriptionServiceStub(channel), WindowServiceStub(channel)


async def failure_of(call: Awaitable[object]) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_failure(caught.value)


async def test_recognize_and_live_windows_are_asked_of_the_server(
    server: SpeechServer, speech: Samples
) -> None:
    pcm = from_float(speech[: 5 * SAMPLE_RATE])
    async with remote(server) as engine, serving(engine) as (transcription, windows):
        file = await transcription.Recognize(
            transcription_pb2.RecognizeRequest(content=encode_slice(pcm))
        )
        window = await windows.RecognizeWindow(
            transcription_pb2.RecognizeWindowRequest(samples=pcm.tobytes(), is_final=True)
        )

    assert file.text == "It was a cold day."
    assert window.segments[0].text == " It was a cold day."
    assert file.language_code == window.language_code == "en"


async def test_who_waits_learns_what_is_wrong_with_the_server(
    server: SpeechServer, speech: Samples
) -> None:
    pcm = from_float(speech[: 5 * SAMPLE_RATE])
    file = transcription_pb2.RecognizeRequest(content=encode_slice(pcm))
    window = transcription_pb2.RecognizeWindowRequest(samples=pcm.tobytes())
    busy = Reply(429, headers={"Retry-After": "7"})
    refused = Reply(400, {"error": "Unsupported language"})
    async with remote(server) as engine, serving(engine) as (transcription, windows):
        failing = Reply(500, {"error": "boom"})
        server.script.extend([busy, busy, refused, refused, failing, Reply(cuts=True), Reply(401)])
        for call in (transcription.Recognize(file), windows.RecognizeWindow(window)):
            failure = await failure_of(call)
            assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        refusal = await failure_of(transcription.Recognize(file))
        # One window says nothing of the rest of its session.
        other = await failure_of(windows.RecognizeWindow(window))
        failed = await failure_of(transcription.Recognize(file))
        away = await failure_of(transcription.Recognize(file))
        denied = await failure_of(transcription.Recognize(file))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REFUSED_BY_ENGINE",
    )
    assert other.code is failed.code is grpc.StatusCode.UNAVAILABLE
    assert (failed.reason, failed.message) == ("ENGINE_FAILED", "the server answered 500: boom")
    assert away.code is denied.code is grpc.StatusCode.UNAVAILABLE
    assert denied.reason == "ENGINE_NOT_READY"


def asked_once(asked: Asked) -> Reply:
    return Reply(body={"text": "It was a cold day."})


async def test_text_without_times_is_one_segment(server: SpeechServer, speech: Samples) -> None:
    server.otherwise = asked_once
    async with RemoteEngine(
        "parrot", server.url, "parrot-1", "", concurrency=1, timeout_seconds=60, with_times=False
    ) as engine, serving(engine) as (transcription, _):  # fmt: skip
        content = encode_slice(from_float(speech[: 5 * SAMPLE_RATE]))
        file = await transcription.Recognize(transcription_pb2.RecognizeRequest(content=content))

    (asked,) = server.asked
    assert asked.fields["response_format"] == ["json"]
    assert "timestamp_granularities[]" not in asked.fields
    assert asked.headers["Authorization"] is None
    (segment,) = file.segments
    assert (segment.start_offset.seconds, segment.end_offset.seconds) == (0, 5)
