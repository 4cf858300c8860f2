"""What can't be done now is parked: tried again, visible, and nothing of what came is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

import numpy as np
import psycopg
import pytest

from live_sessions import Samples, Service, cut
from recordings import RATE, decoded, encoded, samples_of
from steno.audio import fork_server
from steno.concatenation.domain import Lease, Session
from steno.concatenation.store import Store
from steno.platform.database import open_pool
from steno.platform.objects import ObjectStore
from steno.platform.settings import PostgresSettings
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

NO_FORK = """
import os
def fork():
    raise BlockingIOError
os.fork = fork
"""


@pytest.fixture(scope="session")
def speech() -> Samples:
    return samples_of("demo.opus")[: 6 * RATE]


def execute(environment: dict[str, str], statement: str) -> None:
    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        db.execute(statement)


async def tried(service: Service, session_id: str, times: int) -> pb.Session:
    """The session, once that many tries in a row have come to nothing."""

    async def look() -> pb.Session | None:
        session = await service.get(session_id)
        assert session.state == pb.SESSION_STATE_OPEN, session.error
        return session if session.parking.failure_count >= times else None

    return await eventually(look)


async def test_a_container_waits_while_no_decoder_can_be_started_and_is_recorded_then(
    service: Service,
    objects: ObjectStore,
    speech: Samples,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    chunks = cut(encoded(speech, "flac"), 20_000)
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    hurry = "UPDATE concatenation.sessions SET not_before = now() WHERE lease_until IS NULL"
    with monkeypatch.context() as broken:
        broken.setattr(fork_server, "BOOTSTRAP", NO_FORK + fork_server.BOOTSTRAP)
        fork_server.close()
        for sequence, chunk in enumerate(chunks[:-1]):
            await service.append(session.session_id, sequence, chunk)
        for times in range(1, 8):
            execute(environment, hurry)
            seen = await tried(service, session.session_id, times)
        await service.append(session.session_id, len(chunks) - 1, chunks[-1])
    listed = await service.stub.ListSessions(pb.ListSessionsRequest())
    kept = await objects.list_prefix(f"sessions/{session.session_id}/chunks/")

    fork_server.close()
    closed = await service.close(session.session_id)  # tries at once

    assert seen.parking.reason == "DECODER_UNAVAILABLE"
    assert "could not be started" in seen.parking.message
    assert listed.sessions[0].parking.failure_count >= 7
    assert len(kept) == len(chunks)
    assert not closed.error.reason
    assert not closed.HasField("parking")
    assert np.array_equal(decoded(await service.file(session.session_id)), speech)


async def test_replicas_that_die_again_and_again_end_no_session(
    service: Service, environment: dict[str, str], objects: ObjectStore, speech: Samples
) -> None:
    file = encoded(speech, "flac")
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    await service.append(session.session_id, 0, file[:100])  # no sample can be made of it

    # As if each that took it had died at once.
    execute(
        environment,
        "UPDATE concatenation.sessions SET failure_count = 20, attempt = attempt + 20,"
        " lease_until = now() - interval '1 s'",
    )
    seen = await tried(service, session.session_id, 21)
    await service.append(session.session_id, 1, file[100:])
    closed = await service.close(session.session_id)

    assert seen.parking.reason == "WORKER_LOST"
    assert seen.parking.next_attempt_time.ToSeconds() - seen.update_time.ToSeconds() > 200
    assert not closed.error.reason
    assert np.array_equal(decoded(await service.file(session.session_id)), speech)


async def test_a_session_that_was_closed_while_it_was_parked_becomes_an_audio_when_it_can(
    service: Service, environment: dict[str, str], speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)

    async def has_ended_and_failed_again() -> pb.Session | None:
        seen = await service.get(session.session_id)
        failed_again = seen.parking.failure_count >= 2
        return seen if seen.state != pb.SESSION_STATE_OPEN and failed_again else None

    with monkeypatch.context() as broken:
        broken.setattr(fork_server, "BOOTSTRAP", NO_FORK + fork_server.BOOTSTRAP)
        fork_server.close()
        await service.append(session.session_id, 0, encoded(speech, "flac"))
        await tried(service, session.session_id, 1)
        request = pb.CloseSessionRequest(session_id=session.session_id)
        closing = service.stub.CloseSession(request)
        ended = await eventually(has_ended_and_failed_again)
        assert not closing.done()
        closing.cancel()
    fork_server.close()

    async def has_become_an_audio() -> bool:
        return bool((await service.get(session.session_id)).audio_id)

    await eventually(has_become_an_audio)

    assert ended.state == pb.SESSION_STATE_CLOSED
    assert not ended.audio_id
    assert ended.parking.reason == "DECODER_UNAVAILABLE"
    assert np.array_equal(decoded(await service.file(session.session_id)), speech)


async def test_who_works_on_a_session_for_long_enough_has_not_failed_at_it(
    service: Service, environment: dict[str, str], speech: Samples
) -> None:
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    await service.append(session.session_id, 0, encoded(speech, "flac")[:100])
    # A lease that runs out may be renewed before anybody has seen that.
    run_out = (
        "UPDATE concatenation.sessions SET lease_until = now() - interval '1 s'"
        " WHERE failure_count = 0"
    )

    async def is_tried_again() -> bool:
        execute(environment, run_out)
        parking = (await service.get(session.session_id)).parking
        return parking.failure_count > 0 and not parking.HasField("next_attempt_time")

    await eventually(is_tried_again, every=0.3)

    # Its producer is silent, and nobody dies.
    execute(environment, "UPDATE concatenation.sessions SET lease_time = now() - interval '6 min'")

    async def is_forgiven() -> bool:
        return not (await service.get(session.session_id)).HasField("parking")

    await eventually(is_forgiven)


async def test_callers_of_close_share_one_look_at_the_database(
    service: Service, speech: Samples, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    session = await service.open()
    await service.append(session.session_id, 0, speech.tobytes())
    execute(
        environment,
        "UPDATE concatenation.sessions SET lease_until = now() + interval '1 h',"
        " attempt = attempt + 1",
    )  # as if another replica had the work
    looks, rounds = list[UUID](), list[object]()
    get, get_all = Store.get, Store.get_all

    async def counted(self: Store, session_id: UUID) -> Session:
        looks.append(session_id)
        return await get(self, session_id)

    async def shared(self: Store, session_ids: Collection[UUID]) -> dict[UUID, Session | None]:
        rounds.append(session_ids)
        return await get_all(self, session_ids)

    monkeypatch.setattr(Store, "get", counted)
    monkeypatch.setattr(Store, "get_all", shared)
    closing = [asyncio.create_task(service.close(session.session_id)) for _ in range(20)]
    await eventually(lambda: len(rounds) > 30)  # 20 of them at the beginning
    waited = len(looks)
    execute(environment, "UPDATE concatenation.sessions SET lease_until = NULL")
    answers = await asyncio.gather(*closing)

    assert waited < 5 * len(closing)
    assert len({answer.audio_id for answer in answers}) == 1
    assert answers[0].audio_id


@pytest.mark.parametrize(("reason", "failure_count"), [("INTERNAL", 3), ("WORKER_LOST", 0)])
async def test_live_results_are_no_progress_of_what_failed_beside_them(
    service: Service, environment: dict[str, str], reason: str, failure_count: int
) -> None:
    session_id = UUID((await service.open()).session_id)
    execute(
        environment,
        "UPDATE concatenation.sessions SET attempt = 7, lease_until = now() + interval '1 h',"
        f" failure_count = 3, failure_reason = '{reason}'",
    )

    async with open_pool(PostgresSettings()) as pool:
        await Store(pool).add_results(Lease(session_id, 7), [], 100, "en")

    assert (await service.get(str(session_id))).parking.failure_count == failure_count
