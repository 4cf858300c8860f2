"""Sessions, chunks, recordings and events in Postgres.

One method is one transaction. Whatever changes a session locks its row first, so changes of one
session come one after another: revisions have no holes, and no two transactions wait for each
other. What the work behind a session writes is fenced by its lease, what a stream writes by its
epoch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from steno.concatenation import statements as sql
from steno.concatenation.domain import (
    Appended,
    DecodingError,
    Gap,
    GapCause,
    Lease,
    Missing,
    NewSession,
    Part,
    Piece,
    RequestIdReused,
    Session,
    SessionNotFound,
    SessionState,
    Sound,
    StaleLease,
    StoredChunk,
    events_between,
)
from steno.concatenation.keys import session_prefix, source_prefixes
from steno.concatenation.messages import render_event
from steno.concatenation.rows import columns_of, session_of
from steno.platform.database import Connection, Pool, every, one
from steno.platform.errors import ResourceExhausted
from steno.platform.removals import Removals
from steno.platform.telemetry import trace_headers
from steno.v1.concatenation_pb2 import LiveResult, SessionEvent

log = logging.getLogger(__name__)

LEASE = tuple(field.name for field in dataclasses.fields(Lease))

ROOM_AFTER = timedelta(seconds=30)

FORGIVEN_AFTER = timedelta(minutes=5)
"""Who works on a session for so long has not failed at it, though it may have nothing to do."""

LEAST_GRACE = timedelta(hours=1)
"""How long a retry of a chunk is answered as before, once its session is finished."""

_BATCH = 200
_TRIM_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Statistics:
    """How many sessions there are, and in seconds what has waited longest.

    `ending` sessions have ended and are not an audio yet; the last try at `parked` ones came to
    nothing; a missing chunk is waited for until its session's gap timeout.
    """

    open: int
    ending: int
    parked: int
    oldest_ending: float
    oldest_missing: float


@dataclass
class _Change:
    """A session that is locked: what it was, what it becomes, and what is told of it beside that.

    `has_chunks` says that chunks have come, be they new or not: the session is not idle.
    """

    db: Connection
    before: Session | None
    session: Session
    added: list[Gap | LiveResult] = field(default_factory=list)
    has_chunks: bool = False


def _change(db: Connection, locked: DictRow) -> _Change:
    session = session_of(locked)
    return _Change(db, session, session)


class Store:
    """The sessions. Raises SessionNotFound for ids that are not there.

    What changes a session under a lease raises StaleLease once another replica has taken it.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.removals = Removals(
            pool, "concatenation", key_column="object_prefix", only_prefixes=True
        )
        """The bytes of sessions that must go."""

    async def create(self, new: NewSession, max_open: int, tenant_max_open: int) -> Session:
        """Opens a session. A repeat answers the one it opened.

        Raises:
            ResourceExhausted: `max_open` are open, or `tenant_max_open` of the tenant.
            RequestIdReused: the request_id was used with another body.
        """
        if known := await self._find(new):
            return await self.get(known)
        values = dataclasses.asdict(new.config) | {
            "session_id": uuid4(),
            "tenant": new.tenant,
            "display_name": new.display_name,
            "labels": Jsonb(dict(new.labels)),
            "max_open": max_open,
            "tenant_max_open": tenant_max_open,
            "trace": Jsonb(trace_headers()),
        }
        try:
            async with self._pool.transaction() as db:
                row = await one(db, sql.ADD_SESSION, **values)
                if row is None:
                    raise ResourceExhausted(
                        f"{max_open} sessions are open already, or {tenant_max_open} of tenant"
                        f" {new.tenant}",
                        ROOM_AFTER,
                        "TOO_MANY_SESSIONS",
                    )
                if new.request_id is not None:
                    request = {
                        "tenant": new.tenant,
                        "request_id": new.request_id,
                        "fingerprint": new.fingerprint,
                        "session_id": row["session_id"],
                    }
                    await db.execute(sql.ADD_REQUEST_ID, request)
                change = _Change(db, None, session_of(row))
                await self._save(change)
            return change.session
        except UniqueViolation:
            # The same request came twice at once, and the other was faster.
            known = await self._find(new)
            assert known is not None
            return await self.get(known)

    async def get(self, session_id: UUID) -> Session:
        """Returns a session."""
        async with self._pool.connection() as db:
            row = await one(db, sql.GET_SESSION, session_id=session_id)
        if row is None:
            raise SessionNotFound(session_id)
        return session_of(row)

    async def tenant_of(self, session_id: UUID) -> str | None:
        """Whose a session is; None if there is none."""
        async with self._pool.connection() as db:
            row = await one(db, sql.TENANT_OF_SESSION, session_id=session_id)
        return None if row is None else row["tenant"]

    async def get_all(self, session_ids: Collection[UUID]) -> dict[UUID, Session | None]:
        """Returns sessions, without those that are gone; None for one that can't be read."""
        async with self._pool.connection() as db:
            rows = await every(db, sql.GET_SESSIONS, session_ids=list(session_ids))
        return {row["session_id"]: _read(row) for row in rows}

    async def page(
        self,
        tenant: str,
        states: Sequence[SessionState],
        labels: Mapping[str, str],
        limit: int,
        before: tuple[datetime, UUID] | None,
    ) -> tuple[list[Session], tuple[datetime, UUID] | None]:
        """Returns a tenant's sessions, newest first, from the one after `before` on.

        Without those that can't be read; and `before` of the next page, if there is one.
        """
        before_time, before_id = before or (None, None)
        async with self._pool.connection() as db:
            rows = await every(
                db,
                sql.LIST_SESSIONS,
                tenant=tenant,
                states=[str(state) for state in states] or None,
                labels=Jsonb(dict(labels)),
                before_time=before_time,
                before_id=before_id,
                limit=limit + 1,
            )
        sessions = [session for row in rows[:limit] if (session := _read(row))]
        if len(rows) <= limit:
            return sessions, None
        last = rows[limit - 1]
        return sessions, (last["create_time"], last["session_id"])

    async def take_over(self, session_id: UUID, epoch: int, producer_id: UUID | None) -> Session:
        """A new stream writes from now on; its epoch is that of the session that is returned.

        Raises:
            SessionNotOpen, WriterReplaced: see Session.taken_over.
        """
        async with self._changing(session_id) as change:
            change.session = change.session.taken_over(epoch, producer_id)
        return change.session

    async def close(self, session_id: UUID) -> Session:
        """Ends a session: what is missing becomes a gap. If its work is parked, it is tried now."""
        async with self._changing(session_id) as change:
            await change.db.execute(sql.RETRY_NOW, {"session_id": session_id})
            await self._end(change, SessionState.CLOSED)
        return change.session

    async def idle(self) -> list[UUID]:
        """Returns sessions that have been idle for too long."""
        async with self._pool.connection() as db:
            return [row["session_id"] for row in await every(db, sql.IDLE_SESSIONS)]

    async def expire(self, session_id: UUID) -> bool:
        """Ends a session that has been idle for too long, if it still is."""
        async with self._if_still(sql.LOCK_IDLE_SESSION, session_id) as change:
            if change is not None:
                await self._end(change, SessionState.EXPIRED)
        return change is not None

    async def overdue(self) -> list[UUID]:
        """Returns sessions that have waited for a chunk for too long."""
        async with self._pool.connection() as db:
            return [row["session_id"] for row in await every(db, sql.OVERDUE_SESSIONS)]

    async def close_gap(self, session_id: UUID) -> bool:
        """Waits no longer for the next chunk of a session, if it is still overdue."""
        async with self._if_still(sql.LOCK_OVERDUE_SESSION, session_id) as change:
            if change is not None:
                await self._pass_over(change)
        return change is not None

    async def statistics(self) -> Statistics:
        """Counts what there is."""
        async with self._pool.connection() as db:
            row = await one(db, sql.STATISTICS)
        assert row is not None
        return Statistics(**row)

    async def delete(self, session_id: UUID) -> None:
        """Removes a session; its bytes must go."""
        async with self._pool.transaction() as db:
            row = await one(db, sql.DELETE_SESSION, session_id=session_id)
            if row is None:
                raise SessionNotFound(session_id)
            await self.removals.add(db, session_prefix(session_id))

    async def gaps(self, session_id: UUID, limit: int) -> list[Gap]:
        """Returns the gaps of a recording, in order."""
        async with self._pool.connection() as db:
            rows = await every(db, sql.LIST_GAPS, session_id=session_id, limit=limit)
        return [Gap(**row | {"cause": GapCause(row["cause"])}) for row in rows]

    async def known(self, session_id: UUID, sequences: Sequence[int]) -> dict[int, bytes]:
        """Returns the digests of those chunks that are there already."""
        async with self._pool.connection() as db:
            return await _known(db, session_id, sequences)

    async def append(
        self, session_id: UUID, epoch: int | None, chunks: Sequence[StoredChunk]
    ) -> Appended:
        """Takes chunks whose bytes are in the object store, and puts in order what can be.

        Args:
            session_id: the session.
            epoch: of the stream that they came with; None if they came by themselves.
            chunks: sequences may repeat what is there.

        Raises:
            SessionNotOpen: it has ended, and not all of the chunks are there.
            WriterReplaced: another stream has taken over.
            SessionTooLong: the recording has its longest duration.
        """
        async with self._changing(session_id) as change:
            session = change.session
            known = await _known(change.db, session_id, [chunk.sequence for chunk in chunks])
            accepted = session.accepted(epoch, chunks, known)
            if accepted.fresh:
                held_bytes = await self._held_bytes(change)
                change.session = session.appended(accepted.fresh, held_bytes)
                await _add_chunks(change.db, session_id, accepted.fresh)
                if session.next_sequence in (chunk.sequence for chunk in accepted.fresh):
                    await self._put_in_order(change)
            change.has_chunks = not session.state.ended
        return Appended(change.session, accepted.sequences, accepted.refusals)

    async def chunks_from(
        self, session: Session, sequence: int, limit: int = _BATCH
    ) -> list[StoredChunk]:
        """Returns chunks that are in order, from a sequence on."""
        async with self._pool.connection() as db:
            rows = await every(
                db,
                sql.CHUNKS_FROM,
                session_id=session.session_id,
                sequence=sequence,
                before=session.next_sequence,
                limit=limit,
            )
        return [StoredChunk(**row) for row in rows]

    async def chunk_at(self, session_id: UUID, byte: int) -> tuple[StoredChunk, int] | None:
        """Returns the chunk of a container that holds a byte, and the chunk's first byte."""
        async with self._pool.connection() as db:
            row = await one(db, sql.CHUNK_AT_BYTE, session_id=session_id, byte=byte)
        if row is None:
            return None
        start = row.pop("start_byte")
        chunk = StoredChunk(**row)
        return (chunk, start) if byte < start + chunk.size_bytes else None

    async def missing(self, session_id: UUID, first: int, before: int) -> list[Missing]:
        """Returns what never came of a container's chunks from a sequence up to another."""
        async with self._pool.connection() as db:
            rows = await every(
                db, sql.MISSING_CHUNKS, session_id=session_id, first=first, before=before
            )
        return [Missing(**row) for row in rows]

    async def pieces(self, session_id: UUID, start_frame: int, end_frame: int) -> list[Piece]:
        """Returns the runs that a stretch of the recording is made of, in order."""
        async with self._pool.connection() as db:
            rows = await every(
                db,
                sql.PIECES_BETWEEN,
                session_id=session_id,
                start_frame=start_frame,
                end_frame=end_frame,
            )
        return [Piece(**row) for row in rows]

    async def parts(self, session_id: UUID) -> list[Part]:
        """Returns the parts that are joined, in order."""
        async with self._pool.connection() as db:
            return [Part(**row) for row in await every(db, sql.LIST_PARTS, session_id=session_id)]

    async def any_lost(self) -> bool:
        """Whether the lease of a session has run out."""
        async with self._pool.connection() as db:
            row = await one(db, sql.ANY_LOST)
        return row is not None and bool(row["lost"])

    async def park_lost(self, longest_pause: timedelta) -> None:
        """Parks sessions whose lease has run out."""
        async with self._pool.connection() as db:
            await db.execute(sql.PARK_LOST, {"longest_pause": longest_pause})

    async def claim(self, limit: int, lease: timedelta) -> list[tuple[Lease, Session]]:
        """Takes sessions that nobody works on. Another replica takes others."""
        async with self._pool.connection() as db:
            rows = await every(db, sql.CLAIM_SESSIONS, limit=limit, lease=lease)
        # The lease of one that can't be read runs out: others can be worked on.
        return [
            (Lease(**{name: row[name] for name in LEASE}), session)
            for row in rows
            if (session := _read(row))
        ]

    async def renew(
        self, leases: Sequence[Lease], duration: timedelta
    ) -> tuple[set[UUID], set[UUID]]:
        """Keeps leases for `duration` from now, but for those whose row is locked at the moment.

        Returns the sessions of those that were renewed, and of those that are held.
        """
        held = _held(leases)
        async with self._pool.connection() as db:
            renewed = await every(
                db, sql.RENEW_LEASES, **held, lease=duration, forgiven_after=FORGIVEN_AFTER
            )
            kept = await every(db, sql.HELD_LEASES, **held)
        return {row["session_id"] for row in renewed}, {row["session_id"] for row in kept}

    async def end_leases(self, leases: Sequence[Lease]) -> None:
        """Lets other replicas go on at once; not where a row is locked: that lease runs out."""
        async with self._pool.connection() as db:
            await db.execute(sql.END_LEASES, _held(leases))

    async def park(self, lease: Lease, reason: str, message: str, longest_pause: timedelta) -> None:
        """Ends a lease after a try that came to nothing; the next comes after a growing pause."""
        values = {"reason": reason, "message": message, "longest_pause": longest_pause}
        async with self._pool.connection() as db:
            await db.execute(sql.PARK_SESSION, dataclasses.asdict(lease) | values)

    async def add_decoded(
        self, lease: Lease, sounds: Sequence[Sound], next_sequence: int
    ) -> Session:
        """Adds decoded sound: of a file all at once.

        Args:
            lease: held.
            sounds: its samples, in order.
            next_sequence: first chunk that is not decoded yet.
        """
        async with self._held(lease) as change:
            change.session, pieces = change.session.decoded(sounds, next_sequence)
            await _add_pieces(change.db, lease.session_id, pieces)
        return change.session

    async def missing_from(self, session: Session) -> int | None:
        """Returns the last of the missing chunks that come next to be decoded; None: none are."""
        async with self._pool.connection() as db:
            row = await one(
                db, sql.GAP_AT, session_id=session.session_id, sequence=session.decoded_sequence
            )
        return None if row is None else int(row["last_sequence"])

    async def add_silence(
        self, lease: Lease, last: int, usual_frames: int, cause: GapCause
    ) -> Session:
        """Puts silence in the place of the chunks that come next to be decoded.

        Args:
            lease: held.
            last: sequence of the last of them.
            usual_frames: how long each counts.
            cause: why there is nothing to decode.
        """
        async with self._held(lease) as change:
            change.session, gap = change.session.undecoded(last, usual_frames, cause)
            await self._add_silence(change, gap)
        return change.session

    async def note_gap(self, lease: Lease, gap: Gap) -> Session:
        """The silence in the place of a STREAM's chunks is recorded. Once more changes nothing."""
        async with self._held(lease) as change:
            of = {"session_id": lease.session_id, "sequence": gap.first_sequence}
            if await one(change.db, sql.UNPLACED_GAP, **of) is not None:
                change.session, gap = change.session.placed(gap)
                await self._add_gap(change, gap)
        return change.session

    async def drain(self, lease: Lease, error: DecodingError | None = None) -> Session:
        """Nothing more will be recorded. With an error the session ends, if it has not yet."""
        async with self._held(lease) as change:
            change.session = change.session.completed(error)
        return change.session

    async def add_part(self, lease: Lease, part: Part) -> Session:
        """Adds the next part."""
        async with self._held(lease) as change:
            values = dataclasses.asdict(part) | {"session_id": lease.session_id}
            await change.db.execute(sql.ADD_PART, values)
            change.session = change.session.joined(part)
        return change.session

    async def add_results(
        self, lease: Lease, results: Sequence[LiveResult], frame_count: int, language_code: str
    ) -> Session:
        """Adds final results, which are all there are up to a frame; numbers them."""
        async with self._held(lease) as change:
            for index, result in enumerate(results, change.session.live_segment_count):
                result.segment.index = index
            change.added += results
            change.session = change.session.transcribed(len(results), frame_count, language_code)
        return change.session

    async def end_live(self, lease: Lease, error: str = "") -> Session:
        """There will be no more live results."""
        async with self._held(lease) as change:
            change.session = change.session.live_ended(error)
        return change.session

    async def set_audio(self, lease: Lease, audio_id: UUID) -> Session:
        """The recording has become an audio."""
        async with self._held(lease) as change:
            change.session = replace(change.session, audio_id=audio_id)
        return change.session

    async def set_job(self, lease: Lease, job_id: UUID) -> Session:
        """A job makes the final transcript."""
        async with self._held(lease) as change:
            change.session = replace(change.session, job_id=job_id)
        return change.session

    async def refuse_job(self, lease: Lease, error: str) -> Session:
        """The job service does not make the final transcript."""
        async with self._held(lease) as change:
            change.session = replace(change.session, job_error=error)
        return change.session

    async def adopt(self, lease: Lease, frame_count: int, why: str) -> Session:
        """What the recording was made of is gone, but the file is there, with so many frames."""
        async with self._held(lease) as change:
            change.session = change.session.adopted(frame_count, why)
        return change.session

    async def finish(self, lease: Lease, grace: timedelta) -> Session:
        """Nothing is left to do. What the recording was made of must go, after a grace.

        Snapshots go by themselves: see remove_later.
        """
        async with self._held(lease) as change:
            for prefix in source_prefixes(lease.session_id):
                await self.removals.add(change.db, prefix, delay=grace)
            change.session = replace(change.session, finished=True)
            await change.db.execute(sql.END_LEASE, dataclasses.asdict(lease))
        return change.session

    async def events_after(self, session_id: UUID, revision: int, limit: int) -> list[SessionEvent]:
        """Returns the log after a revision."""
        async with self._pool.connection() as db:
            rows = await every(
                db, sql.EVENTS_AFTER, session_id=session_id, revision=revision, limit=limit
            )
        return [SessionEvent.FromString(row["payload"]) for row in rows]

    async def events_from(
        self, revisions: Mapping[UUID, int], limit: int
    ) -> list[tuple[UUID, SessionEvent]]:
        """Returns events of several sessions, each from a revision on, in order.

        Args:
            revisions: first revision, by session.
            limit: most events of each.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                sql.EVENTS_FROM,
                session_ids=[*revisions],
                revisions=[*revisions.values()],
                limit=limit,
            )
        return [(row["session_id"], SessionEvent.FromString(row["payload"])) for row in rows]

    @asynccontextmanager
    async def unpublished(self, limit: int) -> AsyncIterator[Sequence[bytes]]:
        """Hands out SessionEvents that NATS has not got; they are marked when the block ends well.

        Another replica gets others meanwhile.
        """
        async with self._pool.transaction() as db:
            rows = await every(db, sql.UNPUBLISHED_EVENTS, limit=limit)
            yield [row["payload"] for row in rows]
            async with db.cursor() as cursor:
                await cursor.executemany(sql.MARK_PUBLISHED, rows)

    async def remove_later(self, object_prefix: str, after: timedelta) -> None:
        """What lies there, and will come, must go after a while. Once more changes nothing."""
        async with self._pool.connection() as db:
            await db.execute(
                sql.ADD_LATER_REMOVAL, {"object_prefix": object_prefix, "after": after}
            )

    async def untrimmed(self, grace: timedelta) -> list[UUID]:
        """Returns finished sessions whose chunks, pieces and parts nobody needs any more."""
        after = max(grace, LEAST_GRACE)
        async with self._pool.connection() as db:
            rows = await every(db, sql.UNTRIMMED_SESSIONS, after=after)
        return [row["session_id"] for row in rows]

    async def trim(self, session_id: UUID) -> None:
        """Removes what a finished session's recording was made of, some thousand rows at a time."""
        values = {"session_id": session_id, "limit": _TRIM_ROWS}
        for statement in sql.TRIM_SESSION.values():
            removed = _TRIM_ROWS
            while removed == _TRIM_ROWS:
                async with self._pool.connection() as db:
                    removed = (await db.execute(statement, values)).rowcount
        async with self._pool.connection() as db:
            await db.execute(sql.MARK_TRIMMED, values)

    async def old(self, retention: timedelta) -> list[UUID]:
        """Returns finished sessions that ended so long ago."""
        async with self._pool.connection() as db:
            rows = await every(db, sql.OLD_SESSIONS, after=retention)
        return [row["session_id"] for row in rows]

    @asynccontextmanager
    async def _changing(self, session_id: UUID) -> AsyncIterator[_Change]:
        """Locks a session; at the end of the block saves what it has become, with its events."""
        async with self._pool.transaction() as db:
            row = await one(db, sql.LOCK_SESSION, session_id=session_id)
            if row is None:
                raise SessionNotFound(session_id)
            change = _change(db, row)
            yield change
            await self._save(change)

    @asynccontextmanager
    async def _held(self, lease: Lease) -> AsyncIterator[_Change]:
        """The same, for whoever has the lease. Raises StaleLease."""
        async with self._pool.transaction() as db:
            row = await one(db, sql.LOCK_HELD_SESSION, **dataclasses.asdict(lease))
            if row is None:
                raise StaleLease(lease)
            change = _change(db, row)
            yield change
            await self._save(change)

    @asynccontextmanager
    async def _if_still(
        self, statement: LiteralString, session_id: UUID
    ) -> AsyncIterator[_Change | None]:
        """The same, if the session is as it was found, and nobody else is about to change it."""
        async with self._pool.transaction() as db:
            row = await one(db, statement, session_id=session_id)
            change = _change(db, row) if row is not None else None
            yield change
            if change is not None:
                await self._save(change)

    async def _save(self, change: _Change) -> None:
        """Writes what a session has become, if it has changed, and the events between."""
        after, events = events_between(change.before, change.session, change.added)
        if after == change.before and not change.has_chunks:
            return
        columns = columns_of(after) | {"has_chunks": change.has_chunks}
        row = await one(change.db, sql.SAVE_SESSION, **columns)
        assert row is not None, "it is locked"
        saved = change.session = session_of(row)
        if not events:
            return
        revisions = range(saved.revision - len(events) + 1, saved.revision + 1)
        rendered = (
            render_event(saved, revision, event)
            for revision, event in zip(revisions, events, strict=True)
        )
        values = {
            "session_id": saved.session_id,
            "revisions": list(revisions),
            "payloads": [event.SerializeToString() for event in rendered],
        }
        await change.db.execute(sql.ADD_EVENTS, values)

    async def _end(self, change: _Change, state: SessionState) -> None:
        if change.session.state.ended:
            return
        while change.session.waits:
            await self._pass_over(change)
        change.session = change.session.ended(state)

    async def _pass_over(self, change: _Change) -> None:
        """Waits no longer for the chunks before the next that is there."""
        session = change.session
        if not session.waits:
            return
        of = {"session_id": session.session_id, "sequence": session.next_sequence}
        found = await one(change.db, sql.NEXT_CHUNK_FROM, **of)
        assert found is not None, "the greatest is there"
        change.session, gap = session.passed_over(found["sequence"], found["size_bytes"])
        if isinstance(gap, Gap):
            await self._add_silence(change, gap)
        else:
            values = {"start_frame": None, "frame_count": 0, "cause": GapCause.MISSING}
            values |= dataclasses.asdict(gap) | {"session_id": session.session_id}
            await change.db.execute(sql.ADD_GAP, values)
        await self._put_in_order(change)

    async def _add_silence(self, change: _Change, gap: Gap) -> None:
        if gap.frame_count:
            piece = Piece(gap.start_frame, gap.frame_count, None, 0)
            await _add_pieces(change.db, change.session.session_id, [piece])
        await self._add_gap(change, gap)

    async def _add_gap(self, change: _Change, gap: Gap) -> None:
        """Writes down a gap whose silence is in the recording."""
        values = dataclasses.asdict(gap) | {"session_id": change.session.session_id}
        await change.db.execute(sql.ADD_GAP, values)
        change.added.append(gap)

    async def _held_bytes(self, change: _Change) -> int:
        """How much has come that waits for a chunk before it; 0 of a container."""
        session = change.session
        if session.config.is_container or not session.waits:
            return 0
        of = {"session_id": session.session_id, "sequence": session.next_sequence}
        row = await one(change.db, sql.HELD_BYTES, **of)
        assert row is not None
        return int(row["bytes"])

    async def _put_in_order(self, change: _Change) -> None:
        """Puts in order what follows without a hole."""
        limit = 16
        while True:
            session = change.session
            rows = await every(
                change.db,
                sql.CHUNKS_FROM,
                session_id=session.session_id,
                sequence=session.next_sequence,
                before=session.max_sequence + 1,
                limit=limit,
            )
            ordered = session.ordered([StoredChunk(**row) for row in rows])
            if ordered.pieces:
                await _add_pieces(change.db, session.session_id, ordered.pieces)
            if ordered.start_bytes:
                await _place_chunks(change.db, session.session_id, ordered.start_bytes)
            change.session = ordered.session
            if ordered.count < limit:
                return
            limit = 1000

    async def _find(self, new: NewSession) -> UUID | None:
        if new.request_id is None:
            return None
        async with self._pool.connection() as db:
            row = await one(db, sql.FIND_REQUEST_ID, tenant=new.tenant, request_id=new.request_id)
        if row is None:
            return None
        if row["fingerprint"] != new.fingerprint:
            raise RequestIdReused(new.request_id)
        found: UUID = row["session_id"]
        return found


def _read(row: DictRow) -> Session | None:
    """One of several sessions; None if it can't be read, as a later version wrote it perhaps."""
    try:
        return session_of(row)
    except Exception:
        session_id = str(row["session_id"])
        log.exception("unreadable", extra={"action": "read", "session_id": session_id})
        return None


def _held(leases: Sequence[Lease]) -> dict[str, list[Any]]:
    return {
        "session_ids": [lease.session_id for lease in leases],
        "attempts": [lease.attempt for lease in leases],
    }


async def _known(db: Connection, session_id: UUID, sequences: Sequence[int]) -> dict[int, bytes]:
    rows = await every(db, sql.KNOWN_CHUNKS, session_id=session_id, sequences=list(sequences))
    return {row["sequence"]: bytes(row["sha256"]) for row in rows}


async def _add_chunks(db: Connection, session_id: UUID, chunks: Sequence[StoredChunk]) -> None:
    await db.execute(
        sql.ADD_CHUNKS,
        {
            "session_id": session_id,
            "sequences": [chunk.sequence for chunk in chunks],
            "sha256s": [chunk.sha256 for chunk in chunks],
            "sizes": [chunk.size_bytes for chunk in chunks],
            "keys": [chunk.object_key for chunk in chunks],
            "offsets": [chunk.object_offset for chunk in chunks],
        },
    )


async def _place_chunks(db: Connection, session_id: UUID, start_bytes: Mapping[int, int]) -> None:
    values = {"sequences": [*start_bytes], "start_bytes": [*start_bytes.values()]}
    await db.execute(sql.PLACE_CHUNKS, values | {"session_id": session_id})


async def _add_pieces(db: Connection, session_id: UUID, pieces: Sequence[Piece]) -> None:
    await db.execute(
        sql.ADD_PIECES,
        {
            "session_id": session_id,
            "starts": [piece.start_frame for piece in pieces],
            "counts": [piece.frame_count for piece in pieces],
            "keys": [piece.object_key for piece in pieces],
            "offsets": [piece.object_offset for piece in pieces],
        },
    )
