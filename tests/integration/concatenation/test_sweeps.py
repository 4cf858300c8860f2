"""What nobody asks for is done for each session by itself, and costs no chunk an index."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.rows import DictRow

from live_sessions import Producer, Service
from steno.concatenation import store
from steno.concatenation.domain import Session
from steno.concatenation.rows import session_of
from steno.concatenation.watch import WATCHERS
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

SECOND = bytes(32_000)


async def test_a_session_that_can_not_be_swept_holds_up_no_other(
    service: Service, environment: dict[str, str]
) -> None:
    # No gap is overdue before this is executed, however slow the machine.
    over = "UPDATE concatenation.sessions SET waiting_since = waiting_since - gap_timeout"
    broken = await service.open(gap_timeout=duration_of(600))
    await service.append(broken.session_id, 1, SECOND)
    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        # What can't be: the greatest chunk that has come is not there.
        db.execute("DELETE FROM concatenation.chunks")
        db.execute(over)
        sound = await service.open(gap_timeout=duration_of(600))
        await service.append(sound.session_id, 1, SECOND)
        db.execute(over)

    async def goes_on() -> bool:
        return (await service.get(sound.session_id)).next_sequence == 2

    await eventually(goes_on)
    assert (await service.get(broken.session_id)).next_sequence == 0


async def test_a_chunk_writes_no_index_of_its_session(
    service: Service, environment: dict[str, str]
) -> None:
    session = await service.open()
    producer = Producer([service.stub], session.session_id)
    for sequence in range(60):
        await producer.send([(sequence, bytes(6400))])

    def updates() -> tuple[int, int]:
        with psycopg.connect(environment["STENO_POSTGRES_URL"]) as db:
            found = db.execute(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
                " WHERE schemaname = 'concatenation' AND relname = 'sessions'"
            ).fetchone()
        assert found is not None
        return found

    async def are_counted() -> tuple[int, int] | None:
        all_of_them, hot = await asyncio.to_thread(updates)
        return (all_of_them, hot) if all_of_them >= 60 else None

    all_of_them, hot = await eventually(are_counted)
    assert hot > all_of_them / 2


async def test_a_session_that_can_not_be_read_is_left_out_of_lists_and_is_not_gone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [(await service.open()).session_id for _ in range(3)]

    def partly(row: DictRow) -> Session:
        if str(row["session_id"]) == ids[1]:
            raise ValueError("as a later version wrote it")
        return session_of(row)

    watching = [asyncio.create_task(service.events(session_id)) for session_id in ids]
    await eventually(lambda: WATCHERS._value.get() == len(ids))
    with monkeypatch.context() as later:
        later.setattr(store, "session_of", partly)
        first = await service.stub.ListSessions(pb.ListSessionsRequest(page_size=2))
        token = first.next_page_token
        second = await service.stub.ListSessions(
            pb.ListSessionsRequest(page_size=2, page_token=token)
        )
        await service.close(ids[0])
        await watching[0]
        await service.close(ids[2])
        await watching[2]
        assert not watching[1].done()

    assert [s.session_id for s in (*first.sessions, *second.sessions)] == [ids[2], ids[0]]
    await service.close(ids[1])
    assert await watching[1]
