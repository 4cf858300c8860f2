"""The simulation's database does what Postgres does, with every statement of the sessions' store.

Random sequences of calls are made on both: what is answered, and what the tables hold then, is the
same but for ids and times.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from simulation import session_statements
from simulation.conformance import (
    Call,
    Rows,
    Step,
    Transaction,
    a_server,
    beside,
    hold_against_postgres,
    meet_alike,
    simulated,
    told,
    waits,
)
from steno.concatenation import statements as sql
from steno.concatenation import store
from steno.concatenation.domain import (
    ChunkForm,
    ConcatenationError,
    DecodingError,
    Encoding,
    Gap,
    GapCause,
    Lease,
    NewSession,
    Part,
    RecordingFormat,
    SessionConfig,
    SessionState,
    Sound,
    StoredChunk,
)
from steno.concatenation.store import Store
from steno.platform import removals
from steno.platform.errors import ResourceExhausted
from steno.v1 import concatenation_pb2 as pb

HOUR = timedelta(hours=1)
AT_ONCE = timedelta(0)

STEPS = 100
LOOK_EVERY = 10
"""Calls between two looks at the tables."""
TENANTS = ("default", "other")
MOST_OPEN = (12, 8)
NOBODY = UUID(int=0)


def a_config(**other: Any) -> SessionConfig:
    config: dict[str, Any] = {
        "encoding": Encoding.LINEAR16,
        "sample_rate_hertz": 8000,
        "channel_count": 1,
        "chunk_form": ChunkForm.STREAM,
        "language_code": "en",
        "live_results": True,
        "interim_results": False,
        "endpointing_silence": timedelta(seconds=1),
        "idle_timeout": HOUR,
        "max_duration": HOUR,
        "gap_timeout": HOUR,
        "final_job": True,
        "final_job_config": b"",
        "recording_format": RecordingFormat.WAV,
    }
    return SessionConfig(**config | other)


def a_chunk(sequence: int, form: str, size: int) -> StoredChunk:
    """Chunks of one sequence differ by their form; those of one number follow in one object."""
    digest = sha256(f"{sequence} {form}".encode()).digest()
    return StoredChunk(sequence, digest, size, f"object {sequence // 3}", 8 * (sequence % 3))


@dataclass
class Side:
    """A store, and what sessions are called in a sequence of calls."""

    pool: Any
    rows: Rows
    now: Callable[[], datetime]
    sessions: list[UUID] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self.pool)

    async def make(self, call: Call) -> Any:
        """Makes a call, and answers what it comes to, in words that both sides share."""
        name, about = call
        try:
            answer = await getattr(self, name)(**about)
        except (ConcatenationError, ResourceExhausted) as error:
            answer = (type(error).__name__, str(error))
        except psycopg.Error as error:
            answer = type(error).__name__
        return self.told(answer)

    async def tables(self) -> Any:
        return {
            table: sorted(self.told(_shown(row)) for row in await self.rows(table))
            for table in session_statements.TABLES
        }

    def told(self, answer: Any) -> str:
        names = {each: f"session {number}" for number, each in enumerate(self.sessions)}
        return told(answer, names)

    def lease(self, session: int, attempt: int) -> Lease:
        return Lease(self.sessions[session], attempt)

    # Sessions

    async def create(self, request: int | None, body: str, **new: Any) -> Any:
        request_id = None if request is None else UUID(int=request)
        wanted = NewSession(request_id=request_id, fingerprint=body, **new)
        session = await self.store.create(wanted, *MOST_OPEN)
        if session.session_id not in self.sessions:
            self.sessions.append(session.session_id)
        return session

    async def take_over(self, session: int, epoch: int, producer: int | None) -> Any:
        producer_id = None if producer is None else UUID(int=producer)
        return await self.store.take_over(self.sessions[session], epoch, producer_id)

    async def close(self, session: int) -> Any:
        return await self.store.close(self.sessions[session])

    async def delete(self, session: int) -> Any:
        return await self.store.delete(self.sessions[session])

    async def sweep(self, session: int) -> Any:
        """Ends what is idle, and what is waited for too long, as far as it is that session's."""
        session_id = self.sessions[session]
        overdue, idle = await self.store.overdue(), await self.store.idle()
        return (
            {*overdue},
            {*idle},
            await self.store.close_gap(session_id),
            await self.store.expire(session_id),
        )

    async def look(self, session: int, first: int, start: int) -> Any:
        """All that is read of one session."""
        db, session_id = self.store, self.sessions[session]
        known = await db.get_all([session_id, NOBODY])
        found = await db.get(session_id)
        return (
            known,
            await db.gaps(session_id, 2),
            await db.known(session_id, [first, first + 1, first]),
            await db.chunks_from(found, first, 2),
            await db.chunk_at(session_id, start),
            await db.missing(session_id, 0, 100),
            await db.missing_from(found),
            await db.pieces(session_id, start, start + 9),
            await db.parts(session_id),
            [_event(each) for each in await db.events_after(session_id, first, 3)],
            [(at, _event(each)) for at, each in await db.events_from({session_id: first}, 2)],
        )

    async def look_at_all(self, tenant: str, states: Sequence[str], labels: dict[str, str]) -> Any:
        found, before = await self.store.page(
            tenant, [SessionState(state) for state in states], labels, 100, None
        )
        # Those that came at the same moment come in any order.
        return {str(session.session_id) for session in found}, before

    # Chunks

    async def append(
        self, session: int, epoch: int | None, chunks: Sequence[tuple[int, str, int]]
    ) -> Any:
        stored = [a_chunk(*chunk) for chunk in chunks]
        return await self.store.append(self.sessions[session], epoch, stored)

    # The work behind a session

    async def claim(self, lease: timedelta) -> Any:
        """The leases of those that were lost, too: of a look at the lost nobody is sure."""
        lost = await self.store.any_lost()
        await self.store.park_lost(AT_ONCE)
        claimed = await self.store.claim(100, lease)
        return lost, {f"{each.session_id} at {each.attempt}" for each, _ in claimed}

    async def renew(self, leases: Sequence[tuple[int, int]], duration: timedelta) -> Any:
        return await self.store.renew([self.lease(*each) for each in leases], duration)

    async def end_leases(self, leases: Sequence[tuple[int, int]]) -> Any:
        return await self.store.end_leases([self.lease(*each) for each in leases])

    async def park(self, session: int, attempt: int, reason: str) -> Any:
        await self.store.park(self.lease(session, attempt), reason, "It failed.", AT_ONCE)

    async def add_decoded(
        self, session: int, attempt: int, frames: Sequence[int], done: int
    ) -> Any:
        sounds = [Sound(f"sound {done}", count) for count in frames]
        return await self.store.add_decoded(self.lease(session, attempt), sounds, done)

    async def add_silence(self, session: int, attempt: int, last: int, usual: int) -> Any:
        lease = self.lease(session, attempt)
        return await self.store.add_silence(lease, last, usual, GapCause.UNDECODABLE)

    async def note_gap(self, session: int, attempt: int, first: int, start: int) -> Any:
        gap = Gap(first, first, start, 3, GapCause.MISSING)
        return await self.store.note_gap(self.lease(session, attempt), gap)

    async def drain(self, session: int, attempt: int, wrong: bool) -> Any:
        error = DecodingError("UNSUPPORTED_FORMAT", "It is no audio.") if wrong else None
        return await self.store.drain(self.lease(session, attempt), error)

    async def add_part(self, session: int, attempt: int, number: int, key: str) -> Any:
        part = Part(number, 8 * number, 8, f"{self.sessions[session]} {key}")
        return await self.store.add_part(self.lease(session, attempt), part)

    async def add_results(self, session: int, attempt: int, count: int, frames: int) -> Any:
        results = [pb.LiveResult(is_final=True) for _ in range(count)]
        return await self.store.add_results(self.lease(session, attempt), results, frames, "en")

    async def end_live(self, session: int, attempt: int, error: str) -> Any:
        return await self.store.end_live(self.lease(session, attempt), error)

    async def set_audio(self, session: int, attempt: int) -> Any:
        return await self.store.set_audio(self.lease(session, attempt), UUID(int=1))

    async def set_job(self, session: int, attempt: int) -> Any:
        return await self.store.set_job(self.lease(session, attempt), UUID(int=2))

    async def refuse_job(self, session: int, attempt: int) -> Any:
        return await self.store.refuse_job(self.lease(session, attempt), "There is no model.")

    async def adopt(self, session: int, attempt: int, frames: int) -> Any:
        return await self.store.adopt(self.lease(session, attempt), frames, "They are gone.")

    async def finish(self, session: int, attempt: int) -> Any:
        return await self.store.finish(self.lease(session, attempt), AT_ONCE)

    # Events and removals

    async def publish(self, limit: int) -> Any:
        """Those that came at the same moment come in any order: how many."""
        async with self.store.unpublished(limit) as payloads:
            return len(payloads)

    async def remove(self, prefix: str, settled: int) -> Any:
        await self.store.remove_later(prefix, AT_ONCE)
        found = []
        while claimed := await self.store.removals.claim():
            found += claimed
        # Of one prefix, either all or none: one is as good as another.
        prefixes = sorted({removal.object_key for removal in found}, key=self.told)
        for removal in found:
            if removal.object_key in prefixes[:settled]:
                await self.store.removals.settle(removal)
        return Counter(self.told(removal.object_key) for removal in found)

    async def tidy(self, session: int) -> Any:
        db = self.store
        untrimmed, old = await db.untrimmed(AT_ONCE), await db.old(AT_ONCE)
        session_id = self.sessions[session]
        if session_id in untrimmed:
            await db.trim(session_id)
        return {*untrimmed}, {*old}, await db.old(HOUR)


def _event(event: pb.SessionEvent) -> str:
    """An event without its times."""
    event = pb.SessionEvent.FromString(event.SerializeToString())
    event.ClearField("time")
    if event.HasField("state_changed"):
        session = event.state_changed
        for name in ("create_time", "end_time", "update_time"):
            if session.HasField(name):
                getattr(session, name).Clear()
        session.parking.ClearField("next_attempt_time")
    return str(event)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row, as far as both sides have it."""
    shown = dict(sorted(row.items()))
    shown.pop("removal_id", None)
    if "payload" in shown:
        shown["payload"] = _event(pb.SessionEvent.FromString(shown["payload"]))
    return shown


class Writer:
    """Draws calls that mostly make sense, from what is there."""

    def __init__(self, seed: int, side: Side) -> None:
        self._random = random.Random(seed)
        self._side = side

    async def next(self) -> Call:
        draw = self._random
        if not self._side.sessions or draw.random() < 0.1:
            return "create", self._creation()
        kinds = {
            "append": 8,
            "look": 3,
            "claim": 4,
            **dict.fromkeys(("take_over", "sweep", "add_decoded", "add_part", "add_results"), 2),
            **dict.fromkeys(("add_silence", "note_gap", "finish", "publish", "remove", "tidy"), 2),
            **dict.fromkeys(("close", "delete", "look_at_all", "renew", "end_leases", "park"), 1),
            **dict.fromkeys(("drain", "end_live", "set_audio", "set_job", "refuse_job"), 1),
            "adopt": 1,
        }
        name = draw.choices([*kinds], [*kinds.values()])[0]
        sessions = await self._side.rows("sessions")
        there = {row["session_id"]: row for row in sessions}
        self._rows = [there.get(session_id, {}) for session_id in self._side.sessions]
        return name, getattr(self, f"_{name}")()

    def _creation(self) -> dict[str, Any]:
        draw = self._random
        encoding = draw.choice((Encoding.LINEAR16, Encoding.LINEAR16, Encoding.CONTAINER))
        form = ChunkForm.STREAM if encoding is Encoding.LINEAR16 else draw.choice((*ChunkForm,))
        return {
            "request": draw.choice((None, 1, 2, 3)),
            "body": draw.choice(("same", "same", "other")),
            "config": a_config(
                encoding=encoding,
                chunk_form=form,
                idle_timeout=draw.choice((AT_ONCE, HOUR, HOUR)),
                gap_timeout=draw.choice((AT_ONCE, HOUR)),
                max_duration=draw.choice((timedelta(milliseconds=5), HOUR, HOUR)),
                recording_format=draw.choice((RecordingFormat.WAV, RecordingFormat.W64)),
            ),
            "display_name": draw.choice(("", "a name")),
            "labels": draw.choice(({}, {"a": "b"}, {"a": "b", "c": "d"})),
            "tenant": draw.choice(TENANTS),
        }

    def _session(self) -> int:
        """One of the last, mostly one that is there."""
        last = range(max(0, len(self._rows) - 6), len(self._rows))
        there = [number for number in last if self._rows[number]]
        return self._random.choice(there if there and self._random.random() < 0.95 else last)

    def _of(self, session: int, name: str) -> int:
        return int(self._rows[session].get(name, 0))

    def _look(self) -> dict[str, Any]:
        draw = self._random
        return {
            "session": self._session(),
            "first": draw.randint(0, 6),
            "start": draw.randint(0, 30),
        }

    def _look_at_all(self) -> dict[str, Any]:
        draw = self._random
        states = draw.choice(([], ["OPEN"], ["CLOSED", "EXPIRED"]))
        labels = draw.choice(({}, {"a": "b"}))
        return {"tenant": draw.choice(TENANTS), "states": states, "labels": labels}

    def _one(self) -> dict[str, Any]:
        return {"session": self._session()}

    _close = _delete = _sweep = _tidy = _one

    def _take_over(self) -> dict[str, Any]:
        session, draw = self._session(), self._random
        epoch = draw.choice((0, self._of(session, "epoch"), 1))
        return {"session": session, "epoch": epoch, "producer": draw.choice((None, 1, 2))}

    def _append(self) -> dict[str, Any]:
        session, draw = self._session(), self._random
        first = self._of(session, "next_sequence") + draw.choice((0, 0, 0, 1, 2, -1))
        chunks = [
            (max(0, first + draw.randint(0, 2)), draw.choice("aaab"), draw.choice((2, 8)))
            for _ in range(draw.randint(1, 4))
        ]
        epoch = draw.choice((None, None, self._of(session, "epoch"), 1))
        return {"session": session, "epoch": epoch, "chunks": chunks}

    def _claim(self) -> dict[str, Any]:
        return {"lease": self._random.choice((AT_ONCE, HOUR, HOUR))}

    def _leased(self) -> dict[str, Any]:
        """A session that somebody works on, mostly by the attempt that counts."""
        session, draw = self._session(), self._random
        return {
            "session": session,
            "attempt": self._of(session, "attempt") - (draw.random() < 0.1),
        }

    _set_audio = _set_job = _refuse_job = _finish = _leased

    def _leases(self) -> list[tuple[int, int]]:
        found = [self._leased() for _ in range(self._random.randint(0, 3))]
        # Each session once.
        return [*{each["session"]: each["attempt"] for each in found}.items()]

    def _renew(self) -> dict[str, Any]:
        return {"leases": self._leases(), "duration": self._random.choice((AT_ONCE, HOUR))}

    def _end_leases(self) -> dict[str, Any]:
        return {"leases": self._leases()}

    def _park(self) -> dict[str, Any]:
        reasons = ("DEPENDENCY_UNAVAILABLE", "INTERNAL")
        return {**self._leased(), "reason": self._random.choice(reasons)}

    def _add_decoded(self) -> dict[str, Any]:
        leased, draw = self._leased(), self._random
        frames = [draw.choice((1, 5, 9, 0)) for _ in range(draw.randint(0, 2))]
        done = self._of(leased["session"], "decoded_sequence") + draw.randint(0, 1)
        return {**leased, "frames": frames, "done": done}

    def _add_silence(self) -> dict[str, Any]:
        leased, draw = self._leased(), self._random
        last = self._of(leased["session"], "decoded_sequence") + draw.randint(0, 1)
        return {**leased, "last": last, "usual": draw.choice((0, 4))}

    def _note_gap(self) -> dict[str, Any]:
        draw = self._random
        return {**self._leased(), "first": draw.randint(0, 4), "start": draw.randint(0, 20)}

    def _drain(self) -> dict[str, Any]:
        return {**self._leased(), "wrong": self._random.random() < 0.5}

    def _add_part(self) -> dict[str, Any]:
        leased, draw = self._leased(), self._random
        number = max(0, self._of(leased["session"], "part_count") - (draw.random() < 0.1))
        return {**leased, "number": number, "key": f"part {draw.randint(0, 20)}"}

    def _add_results(self) -> dict[str, Any]:
        draw = self._random
        return {**self._leased(), "count": draw.randint(0, 2), "frames": draw.randint(0, 30)}

    def _end_live(self) -> dict[str, Any]:
        return {**self._leased(), "error": self._random.choice(("", "It failed."))}

    def _adopt(self) -> dict[str, Any]:
        return {**self._leased(), "frames": self._random.randint(0, 40)}

    def _publish(self) -> dict[str, Any]:
        return {"limit": self._random.randint(1, 20)}

    def _remove(self) -> dict[str, Any]:
        draw = self._random
        return {"prefix": draw.choice(("x/", "y/")), "settled": draw.randint(0, 9)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes an hour takes no time."""
    monkeypatch.setattr(store, "LEAST_GRACE", AT_ONCE)
    monkeypatch.setattr(removals, "SECOND_REMOVAL_AFTER", AT_ONCE)


@pytest.mark.parametrize("seed", range(8))
async def test_the_simulated_database_does_what_postgres_does(
    seed: int, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FORGIVEN_AFTER", (AT_ONCE, HOUR)[seed % 2])

    def simulate() -> list[Step]:
        loop, server = a_server(seed, session_statements)
        writer = partial(Writer, seed)
        return simulated(loop, server, Side, writer, count=STEPS, look_every=LOOK_EVERY)

    url = environment["STENO_POSTGRES_URL"]
    await hold_against_postgres(beside(simulate), url, "concatenation", Side)


async def scenes(pool: Any, now: Callable[[], datetime]) -> list[Any]:
    """What transactions that meet see of each other, and how long pauses are."""
    seen: list[Any] = []
    sessions = Store(pool)
    new = NewSession(a_config(), "", {}, "default", UUID(int=9), "body")

    meets = partial(waits, seen, refusals=(psycopg.Error, ConcatenationError))

    # Who has locked a session is waited for, or passed over; who reads sees what was before.
    session = await sessions.create(new, *MOST_OPEN)
    await sessions.append(session.session_id, None, [a_chunk(0, "a", 8)])
    [(lease, _)] = await sessions.claim(1, AT_ONCE)
    by_id: dict[str, Any] = {"session_id": session.session_id}
    held: dict[str, Any] = {"session_ids": [session.session_id], "attempts": [1]}
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    seen.append(await first.rows(sql.LOCK_SESSION, **by_id))
    seen.append(await second.rows(sql.GET_SESSION, **by_id))
    await second.does(sql.PARK_LOST, longest_pause=AT_ONCE)
    seen.append(await second.rows(sql.CLAIM_SESSIONS, limit=9, lease=HOUR))
    seen.append(
        await second.rows(sql.RENEW_LEASES, **held, lease=HOUR, forgiven_after=HOUR),
    )
    seen.append(await second.rows(sql.HELD_LEASES, **held))
    await second.does(sql.END_LEASES, **held)
    await meets(second.rows(sql.LOCK_HELD_SESSION, **by_id, attempt=1), first, "commit")
    await second.roll_back()

    # A lease that is over while another is about to take it: that one writes, this one does not.
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    await first.does(sql.PARK_LOST, longest_pause=AT_ONCE)
    seen.append(await first.rows(sql.CLAIM_SESSIONS, limit=9, lease=HOUR))
    await meets(sessions.end_live(lease), first, "commit")
    await second.commit()

    # How long it waits after each failure, in whole seconds.
    for _ in range(4):
        [attempt] = [row.attempt for row, _ in await sessions.claim(9, HOUR)] or [2]
        await sessions.park(Lease(session.session_id, attempt), "INTERNAL", "", HOUR)
        parking = (await sessions.get(session.session_id)).parking
        assert parking is not None
        assert parking.next_attempt_time is not None
        pause = parking.next_attempt_time - now()
        seen.append((parking.failure_count, round(pause.total_seconds())))
        await sessions.close(session.session_id)

    # Who waits for a session that is deleted then finds none.
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    seen.append(await first.rows(sql.DELETE_SESSION, **by_id))
    seen.append(await second.rows(sql.GET_SESSION, **by_id))
    await meets(second.rows(sql.LOCK_SESSION, **by_id), first, "commit")
    await second.commit()

    # Sessions that are opened at the same moment do not see each other; a request has one.
    values = {
        **{name: getattr(new.config, name) for name in SessionConfig.__dataclass_fields__},
        **{"tenant": "default", "display_name": "", "max_open": 1, "tenant_max_open": 1},
        **{"labels": Jsonb({}), "trace": Jsonb({})},
    }
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    seen.append(await first.rows(sql.ADD_SESSION, session_id=UUID(int=1), **values))
    seen.append(await second.rows(sql.ADD_SESSION, session_id=UUID(int=2), **values))
    request = {"tenant": "t", "request_id": UUID(int=7), "fingerprint": ""}
    await first.does(sql.ADD_REQUEST_ID, session_id=UUID(int=1), **request)
    again = second.does(sql.ADD_REQUEST_ID, session_id=UUID(int=2), **request)
    await meets(again, first, "commit")
    await second.roll_back()
    third = await Transaction(pool).begin()
    seen.append(await third.rows(sql.ADD_SESSION, session_id=UUID(int=3), **values))
    await third.commit()
    return seen


async def test_transactions_meet_as_they_do_in_postgres(environment: dict[str, str]) -> None:
    await meet_alike(scenes, session_statements)
