"""Who hears a session waits for transcription, but not for ever for one utterance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recordings import RATE, Samples, samples_of
from steno.audio import VadModel
from steno.concatenation import live
from steno.concatenation.domain import Encoding
from steno.concatenation.latest import Latest
from steno.concatenation.live import MOST_FAILURES, LiveTranscript
from steno.concatenation.recording import Recordings
from steno.concatenation.store import Store
from steno.concatenation.windows import Windows
from steno.local.ports import HOST
from steno.platform.wellknown import duration_of, seconds_of
from steno.v1 import transcript_pb2
from steno.v1.transcription_pb2 import RecognizeWindowRequest, RecognizeWindowResponse
from steno.v1.transcription_pb2_grpc import (
    WindowServiceServicer,
    add_WindowServiceServicer_to_server,
)

from .conftest import CONFIG, LEASE, SESSION, Ledger

Trouble = Callable[["Transcription", bytes], grpc.StatusCode | None]
"""What is wrong with the next answer about a window."""


class Transcription(WindowServiceServicer, health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Hears a word in each window, unless there is trouble."""

    def __init__(self) -> None:
        self.trouble: Trouble = lambda _, samples: None
        self.serves = True
        self.asked: list[bytes] = []
        self.timeouts: list[float] = []

    async def RecognizeWindow(
        self, request: RecognizeWindowRequest, context: Any
    ) -> RecognizeWindowResponse:
        self.asked.append(request.samples)
        self.timeouts.append(context.time_remaining())
        code = self.trouble(self, request.samples)
        if code is not None:
            await context.abort(code, "trouble")
        word = transcript_pb2.WordInfo(word=" word", end_offset=duration_of(0.5))
        segment = transcript_pb2.Segment(text=" word", words=[word], end_offset=duration_of(0.5))
        return RecognizeWindowResponse(segments=[segment], language_code="en")

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        statuses = health_pb2.HealthCheckResponse
        return statuses(status=statuses.SERVING if self.serves else statuses.NOT_SERVING)


@pytest.fixture
async def transcription() -> AsyncIterator[tuple[Transcription, Windows]]:
    servicer, server = Transcription(), grpc.aio.server()
    add_WindowServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options) as channel:
        yield servicer, Windows(channel)
    await server.stop(0)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PAUSES", (0.0,))


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Three utterances."""
    word = samples_of("week.ogg")[: 3 * RATE]
    return np.concatenate([word, np.zeros(2 * RATE, np.int16)] * 3)


class Played:
    """A recording that is there."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    async def read(self, session: object, start_frame: int, end_frame: int) -> bytes:
        return self._samples[start_frame:end_frame].tobytes()


async def heard(speech: Samples, windows: Windows) -> Ledger:
    """What is written down of a session that is heard to its end."""
    config = replace(CONFIG, encoding=Encoding.LINEAR16, sample_rate_hertz=RATE, channel_count=1)
    ledger = Ledger(replace(SESSION, config=config, frame_count=len(speech), drained=True))

    async def tell(_: object) -> None:
        return

    await LiveTranscript(
        LEASE,
        cast(Store, ledger),
        cast(Recordings, Played(speech)),
        Latest(ledger.session, lambda: None),
        VadModel(),
        windows,
        tell,
    ).run()
    assert (ledger.session.live_done, ledger.session.live_error) == (True, "")
    assert ledger.session.live_frame_count == len(speech)
    return ledger


def starts(ledger: Ledger) -> list[float]:
    return [seconds_of(result.segment.start_offset) for result in ledger.results]


def at_the_first(code: grpc.StatusCode) -> Trouble:
    """Transcription always fails at the window that it is asked first."""
    return lambda self, samples: code if samples == self.asked[0] else None


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN],
)
async def test_an_utterance_at_which_transcription_fails_is_passed_over_and_the_others_are_heard(
    transcription: tuple[Transcription, Windows], speech: Samples, code: grpc.StatusCode
) -> None:
    servicer, windows = transcription
    all_of_it = await heard(speech, windows)
    servicer.asked.clear()
    servicer.trouble = at_the_first(code)

    ledger = await heard(speech, windows)

    assert servicer.asked.count(servicer.asked[0]) == MOST_FAILURES
    assert len(all_of_it.results) == 3
    assert starts(ledger) == starts(all_of_it)[1:]


async def test_each_failure_gives_the_next_answer_twice_the_time_up_to_a_limit(
    transcription: tuple[Transcription, Windows],
    speech: Samples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servicer, windows = transcription
    servicer.trouble = at_the_first(grpc.StatusCode.DEADLINE_EXCEEDED)
    monkeypatch.setattr(live, "MOST_FAILURES", 6)

    await heard(speech, windows)

    assert servicer.timeouts[:6] == pytest.approx([60, 120, 240, 480, 600, 600], abs=5)
    assert servicer.timeouts[6:] == pytest.approx([60, 60], abs=5)


@pytest.mark.parametrize(
    ("code", "serves"),
    [(grpc.StatusCode.UNAVAILABLE, False), (grpc.StatusCode.RESOURCE_EXHAUSTED, True)],
)
async def test_transcription_that_is_away_or_too_busy_is_waited_for_and_nothing_is_left_out(
    transcription: tuple[Transcription, Windows],
    speech: Samples,
    code: grpc.StatusCode,
    serves: bool,
) -> None:
    servicer, windows = transcription
    servicer.serves = serves
    servicer.trouble = lambda self, _: code if len(self.asked) <= 4 * MOST_FAILURES else None

    ledger = await heard(speech, windows)

    assert len(servicer.asked) == 4 * MOST_FAILURES + 3
    assert len(ledger.results) == 3
    assert servicer.timeouts == pytest.approx([60] * len(servicer.asked), abs=5)


async def test_an_utterance_that_ends_each_worker_that_is_asked_is_passed_over(
    transcription: tuple[Transcription, Windows], speech: Samples
) -> None:
    servicer, windows = transcription
    servicer.trouble = at_the_first(grpc.StatusCode.UNAVAILABLE)

    ledger = await heard(speech, windows)

    assert servicer.asked.count(servicer.asked[0]) == MOST_FAILURES + 1
    assert len(ledger.results) == 2
