"""What nobody needs any more goes; what the contract promises stays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest

from live_sessions import Producer, Samples, Service, cut, failure_of
from recordings import RATE, decoded, samples_of
from steno.concatenation import __main__ as process
from steno.concatenation import store
from steno.platform.objects import ObjectStore
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import upload_pb2
from waiting import eventually

if TYPE_CHECKING:
    from steno.v1.upload_pb2_grpc import UploadServiceAsyncStub

AGED = """
UPDATE concatenation.sessions
SET update_time = update_time - interval '2 days', end_time = end_time - interval '2 days'
"""

ENDED_LONG_AGO = "UPDATE concatenation.sessions SET end_time = end_time - interval '2 days'"


@pytest.fixture(scope="session")
def speech() -> Samples:
    return samples_of("demo.opus")[: 12 * RATE]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TRIM_SECONDS", 0.1)
    monkeypatch.setattr(store, "_TRIM_ROWS", 7)


def rows(environment: dict[str, str], statement: str = "") -> dict[str, int]:
    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        if statement:
            db.execute(statement)
        tables = ("sessions", "chunks", "pieces", "gaps", "events")
        return {
            table: count
            for table in tables
            for (count,) in db.execute(f"SELECT count(*) FROM concatenation.{table}")
        }


async def test_rows_of_a_finished_session_go_and_all_that_was_promised_stays(
    service: Service, environment: dict[str, str], speech: Samples
) -> None:
    session = await service.open()
    chunks = list(enumerate(cut(speech.tobytes(), 6400)))
    del chunks[20]
    await Producer([service.stub], session.session_id).send(chunks)
    await service.close(session.session_id)
    events = await service.events(session.session_id)
    assert rows(environment)["chunks"] == len(chunks)
    assert await service.append(session.session_id, *chunks[3])  # again, as before

    await asyncio.to_thread(rows, environment, AGED)

    async def are_gone() -> bool:
        left = rows(environment)
        return left["chunks"] == left["pieces"] == 0

    await eventually(are_gone)
    assert await service.events(session.session_id) == events
    seen = await service.recording(session.session_id, pb.RECORDING_FORM_UNSPECIFIED)
    assert "#EXT-X-ENDLIST" in seen.playlist
    assert [gap.first_sequence for gap in seen.gaps] == [20]
    assert len(decoded(await service.file(session.session_id))) == len(speech)
    late = await failure_of(service.append(session.session_id, *chunks[3]))
    assert late.reason == "SESSION_NOT_OPEN"


async def test_rows_stay_for_a_while_after_a_session_was_finished_long_after_its_end(
    service: Service, environment: dict[str, str], speech: Samples
) -> None:
    chunks = list(enumerate(cut(speech.tobytes(), 6400)))
    sessions = [await service.open() for _ in range(2)]
    for session in sessions:
        await Producer([service.stub], session.session_id).send(chunks)
        await service.close(session.session_id)
    lately, before = (session.session_id for session in sessions)

    await asyncio.to_thread(rows, environment, ENDED_LONG_AGO)
    await asyncio.to_thread(rows, environment, f"{AGED} WHERE session_id = '{before}'")

    async def one_is_trimmed() -> bool:
        return rows(environment)["chunks"] <= len(chunks)

    await eventually(one_is_trimmed)
    assert await service.append(lately, *chunks[3])  # again, as before
    assert rows(environment)["chunks"] == len(chunks)


class TestRetention:
    @pytest.fixture(autouse=True)
    def retention(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STENO_SESSION_RETENTION_HOURS", "24")

    async def test_sessions_that_ended_long_ago_are_deleted_and_their_audio_stays(
        self,
        service: Service,
        uploads: UploadServiceAsyncStub,
        objects: ObjectStore,
        environment: dict[str, str],
        speech: Samples,
    ) -> None:
        session = await service.open()
        await service.append(session.session_id, 0, speech.tobytes())
        closed = await service.close(session.session_id)
        await service.recording(session.session_id)
        await service.events(session.session_id)
        still = await service.open()
        await service.append(still.session_id, 0, speech.tobytes())

        await asyncio.to_thread(rows, environment, AGED + "WHERE finished")

        async def is_gone() -> bool:
            return rows(environment)["sessions"] == 1

        await eventually(is_gone)
        failure = await failure_of(service.get(session.session_id))
        assert failure.reason == "SESSION_NOT_FOUND"

        async def has_no_objects() -> bool:
            return not await objects.list_prefix(f"sessions/{session.session_id}/")

        await eventually(has_no_objects)
        request = upload_pb2.GetAudioRequest(audio_id=closed.audio_id)
        assert (await uploads.GetAudio(request)).audio.size_bytes > 2 * len(speech)
        assert np.array_equal(decoded(await service.file(still.session_id)), speech)
