"""What the SQL of live sessions does, and what their schema refuses, as functions over rows.

Each function is called as the constant that holds its statement. That they do the same as Postgres
is shown by tests/integration/concatenation/test_conformance.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation

from simulation.database import Row, Statement, Transaction
from simulation.statements import Parameters, assigned, free, locked, statements_of, there
from steno.concatenation import statements as sql
from steno.concatenation.store import Store

_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "sessions": lambda row: row["session_id"],
    "chunks": lambda row: (row["session_id"], row["sequence"]),
    "pieces": lambda row: (row["session_id"], row["start_frame"]),
    "parts": lambda row: (row["session_id"], row["number"]),
    "gaps": lambda row: (row["session_id"], row["first_sequence"]),
    "events": lambda row: (row["session_id"], row["revision"]),
    "request_ids": lambda row: (row["tenant"], row["request_id"]),
    "removals": lambda row: row["removal_id"],
}

TABLES = (*_KEYS,)

_OF_SESSIONS = ("chunks", "pieces", "parts", "gaps", "events", "request_ids")
"""Tables whose rows go with their session."""


# Sessions


def add_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    tenants = [row["tenant"] for row in tx.rows("sessions") if row["state"] == "OPEN"]
    if len(tenants) >= p["max_open"] or tenants.count(p["tenant"]) >= p["tenant_max_open"]:
        return []
    asked = {name: value for name, value in p.items() if not name.endswith("max_open")}
    row = {
        **_NEW_SESSION,
        **asked,
        "encoding": str(p["encoding"]),
        "chunk_form": str(p["chunk_form"]),
        "recording_format": str(p["recording_format"]),
        "labels": p["labels"].obj,
        "trace": p["trace"].obj,
        **dict.fromkeys(("not_before", "create_time", "update_time"), tx.now),
    }
    tx.insert("sessions", p["session_id"], row)
    return [row]


_NEW_SESSION: dict[str, Any] = {
    "state": "OPEN",
    "error_reason": None,
    "error_message": None,
    "producer_id": None,
    "max_sequence": -1,
    **dict.fromkeys(("epoch", "revision", "next_sequence", "byte_count", "decoded_sequence"), 0),
    **dict.fromkeys(("frame_count", "chunk_frame_count", "gap_frame_count", "part_count"), 0),
    **dict.fromkeys(("joined_frame_count", "live_frame_count", "live_segment_count"), 0),
    **dict.fromkeys(("attempt", "failures", "failure_count"), 0),
    **dict.fromkeys(("drained", "live_done", "finished", "trimmed"), False),
    **dict.fromkeys(("live_language_code", "live_error", "job_error"), ""),
    **dict.fromkeys(("failure_reason", "failure_message"), ""),
    **dict.fromkeys(("waiting_since", "chunk_time", "audio_id", "job_id"), None),
    **dict.fromkeys(("lease_until", "lease_time", "end_time"), None),
}


def add_request_id(tx: Transaction, p: Parameters) -> Sequence[Row]:
    tx.insert("request_ids", _KEYS["request_ids"](p), {**p, "create_time": tx.now})
    return []


def find_request_id(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("request_ids", _KEYS["request_ids"](p)))


def get_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("sessions", p["session_id"]))


def tenant_of_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("sessions", p["session_id"]))


def get_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = (tx.get("sessions", session_id) for session_id in dict.fromkeys(p["session_ids"]))
    return [session for session in found if session is not None]


def lock_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(locked(tx, "sessions", p["session_id"]))


def lock_held_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(_locked_if(tx, p, lambda session: session["attempt"] == p["attempt"]))


def list_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    labels = p["labels"].obj.items()
    found = [
        session
        for session in tx.rows("sessions")
        if session["tenant"] == p["tenant"]
        and (p["states"] is None or session["state"] in p["states"])
        and labels <= session["labels"].items()
        and (
            p["before_time"] is None
            or (session["create_time"], session["session_id"]) < (p["before_time"], p["before_id"])
        )
    ]
    found.sort(key=lambda session: (session["create_time"], session["session_id"]), reverse=True)
    return found[: p["limit"]]


_SAVED = assigned(sql.SAVE_SESSION)


def save_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session = locked(tx, "sessions", p["session_id"])
    if session is None:
        return []
    is_open = p["state"] == "OPEN"
    waiting_since = session["waiting_since"]
    if not is_open or p["max_sequence"] < p["next_sequence"]:
        waiting_since = None
    elif session["next_sequence"] != p["next_sequence"] or waiting_since is None:
        waiting_since = tx.clock
    changes = {
        **{name: p[name] for name in _SAVED},
        "state": str(p["state"]),
        "failure_count": session["failure_count"] if _no_progress(session, p) else 0,
        "end_time": None if is_open else session["end_time"] or tx.now,
        "waiting_since": waiting_since,
        "chunk_time": tx.clock if p["has_chunks"] else session["chunk_time"],
        "update_time": tx.clock,
    }
    return [tx.update("sessions", p["session_id"], session, changes)]


def _no_progress(session: Row, p: Parameters) -> bool:
    def same(*names: str) -> bool:
        return all(session[name] == p[name] for name in names)

    return (
        same("decoded_sequence", "part_count", "drained")
        and (
            same("live_frame_count", "live_done")
            or session["failure_reason"] not in ("DEPENDENCY_UNAVAILABLE", "WORKER_LOST")
        )
        and same("audio_id", "job_id", "job_error")
        and (session["encoding"] != "CONTAINER" or same("frame_count"))
    )


def delete_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session_id = p["session_id"]
    if locked(tx, "sessions", session_id) is None:
        return []
    rows = [
        (table, _KEYS[table](row))
        for table in _OF_SESSIONS
        for row in tx.rows(table)
        if row["session_id"] == session_id
    ]
    for table, key in rows:
        tx.lock(table, key)
    for table, key in [*rows, ("sessions", session_id)]:
        tx.delete(table, key)
    return [{"session_id": session_id}]


def is_overdue(tx: Transaction, session: Row) -> bool:
    return bool(
        session["state"] == "OPEN"
        and session["waiting_since"] is not None
        and session["waiting_since"] + session["gap_timeout"] <= tx.clock
    )


def is_idle(tx: Transaction, session: Row) -> bool:
    last = session["chunk_time"] or session["create_time"]
    return bool(session["state"] == "OPEN" and last + session["idle_timeout"] <= tx.clock)


def overdue_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [session for session in tx.rows("sessions") if is_overdue(tx, session)]


def idle_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [session for session in tx.rows("sessions") if is_idle(tx, session)]


def lock_overdue_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session = tx.get("sessions", p["session_id"])
    return _free_sessions(tx, [session]) if session and is_overdue(tx, session) else []


def lock_idle_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session = tx.get("sessions", p["session_id"])
    return _free_sessions(tx, [session]) if session and is_idle(tx, session) else []


# Chunks


def known_chunks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    chunks = (tx.get("chunks", (p["session_id"], n)) for n in dict.fromkeys(p["sequences"]))
    return [chunk for chunk in chunks if chunk is not None]


def add_chunks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    columns = (p["sequences"], p["sha256s"], p["sizes"], p["keys"], p["offsets"])
    names = ("sequence", "sha256", "size_bytes", "object_key", "object_offset")
    for values in zip(*columns, strict=True):
        row = {"session_id": p["session_id"], **dict(zip(names, values, strict=True))}
        tx.insert("chunks", _KEYS["chunks"](row), {**row, "start_byte": None})
    return []


_STORED = ("sequence", "sha256", "size_bytes", "object_key", "object_offset")


def chunks_from(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = _of(
        tx, "chunks", p, "sequence", lambda row: p["sequence"] <= row["sequence"] < p["before"]
    )
    return _columns(found[: p["limit"]], *_STORED)


def next_chunk_from(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return _of(tx, "chunks", p, "sequence", lambda row: row["sequence"] >= p["sequence"])[:1]


def held_bytes(tx: Transaction, p: Parameters) -> Sequence[Row]:
    held = _of(tx, "chunks", p, "sequence", lambda row: row["sequence"] >= p["sequence"])
    return [{"bytes": sum(row["size_bytes"] for row in held)}]


def place_chunks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for sequence, start_byte in zip(p["sequences"], p["start_bytes"], strict=True):
        chunk = locked(tx, "chunks", (p["session_id"], sequence))
        if chunk is not None:
            tx.update("chunks", _KEYS["chunks"](chunk), chunk, {"start_byte": start_byte})
    return []


def chunk_at_byte(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = _of(
        tx,
        "chunks",
        p,
        "sequence",
        lambda row: row["start_byte"] is not None and row["start_byte"] <= p["byte"],
    )
    last = sorted(found, key=lambda row: row["start_byte"])[-1:]
    return _columns(last, *_STORED, "start_byte")


# The recording


def add_pieces(tx: Transaction, p: Parameters) -> Sequence[Row]:
    columns = (p["starts"], p["counts"], p["keys"], p["offsets"])
    for values in zip(*columns, strict=True):
        row = {"session_id": p["session_id"], **dict(zip(_PIECE, values, strict=True))}
        tx.insert("pieces", _KEYS["pieces"](row), row)
    return []


_PIECE = ("start_frame", "frame_count", "object_key", "object_offset")


def pieces_between(tx: Transaction, p: Parameters) -> Sequence[Row]:
    pieces = _of(tx, "pieces", p, "start_frame")
    before = (row["start_frame"] for row in pieces if row["start_frame"] <= p["start_frame"])
    first = max(before, default=0)
    between = [row for row in pieces if first <= row["start_frame"] < p["end_frame"]]
    return _columns(between, *_PIECE)


def add_part(tx: Transaction, p: Parameters) -> Sequence[Row]:
    if any(row["object_key"] == p["object_key"] for row in tx.rows("parts")):
        raise UniqueViolation(f"parts: there is {p['object_key']} already")
    tx.insert("parts", _KEYS["parts"](p), dict(p))
    return []


def list_parts(tx: Transaction, p: Parameters) -> Sequence[Row]:
    parts = _of(tx, "parts", p, "number")
    return _columns(parts, "number", "start_frame", "frame_count", "object_key")


def add_gap(tx: Transaction, p: Parameters) -> Sequence[Row]:
    key = _KEYS["gaps"](p)
    gap = locked(tx, "gaps", key)
    if gap is None:
        tx.insert("gaps", key, {**p, "cause": str(p["cause"])})
    else:
        changes = {name: p[name] for name in ("start_frame", "frame_count")}
        tx.update("gaps", key, gap, changes)
    return []


def gap_at(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("gaps", (p["session_id"], p["sequence"])))


def unplaced_gap(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [gap for gap in gap_at(tx, p) if gap["start_frame"] is None]


def missing_chunks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found: list[Row] = []
    session_id = p["session_id"]
    inside = _of(
        tx,
        "gaps",
        p,
        "first_sequence",
        lambda gap: p["first"] <= gap["first_sequence"] < p["before"],
    )
    for gap in inside:
        following = tx.get("chunks", (session_id, gap["last_sequence"] + 1))
        if following is None:
            continue
        usual = following
        if gap["first_sequence"] > 1:
            before = tx.get("chunks", (session_id, gap["first_sequence"] - 1))
            usual = before or dict.fromkeys(("size_bytes",))
        found.append(
            {
                "first_sequence": gap["first_sequence"],
                "last_sequence": gap["last_sequence"],
                "start_byte": following["start_byte"],
                "usual_bytes": usual["size_bytes"],
            }
        )
    return found


def list_gaps(tx: Transaction, p: Parameters) -> Sequence[Row]:
    gaps = _of(tx, "gaps", p, "first_sequence", lambda gap: gap["start_frame"] is not None)
    names = ("first_sequence", "last_sequence", "start_frame", "frame_count", "cause")
    return _columns(gaps[: p["limit"]], *names)


# Events


def add_events(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for revision, payload in zip(p["revisions"], p["payloads"], strict=True):
        row = {"session_id": p["session_id"], "revision": revision, "payload": payload}
        row |= {"published": False, "create_time": tx.now}
        tx.insert("events", _KEYS["events"](row), row)
    return []


def events_after(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = _of(tx, "events", p, "revision", lambda row: row["revision"] > p["revision"])
    return found[: p["limit"]]


def events_from(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [
        event
        for session_id, revision in sorted(zip(p["session_ids"], p["revisions"], strict=True))
        for event in events_after(
            tx, {"session_id": session_id, "revision": revision - 1, "limit": p["limit"]}
        )
    ]


def unpublished_events(tx: Transaction, p: Parameters) -> Sequence[Row]:
    waiting = sorted(
        (event for event in tx.rows("events") if not event["published"]),
        key=lambda event: (event["create_time"], event["session_id"], event["revision"]),
    )
    return free(tx, "events", waiting, _KEYS["events"], p["limit"])


def mark_published(tx: Transaction, p: Parameters) -> Sequence[Row]:
    event = locked(tx, "events", _KEYS["events"](p))
    if event is not None:
        tx.update("events", _KEYS["events"](p), event, {"published": True})
    return []


# The work behind a session


def any_lost(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [{"lost": any(_is_lost(tx, session) for session in tx.rows("sessions"))}]


def park_lost(tx: Transaction, p: Parameters) -> Sequence[Row]:
    lost = [session for session in tx.rows("sessions") if _is_lost(tx, session)]
    for session in _free_sessions(tx, lost):
        count = session["failure_count"]
        changes = {
            "lease_until": None,
            "failure_count": count + 1,
            "failure_reason": "WORKER_LOST",
            "failure_message": ("The replica that worked on the session has died, or fell silent."),
            "not_before": tx.clock + _pause(p, count),
        }
        tx.update("sessions", session["session_id"], session, changes)
    return []


def _is_lost(tx: Transaction, session: Row) -> bool:
    until = session["lease_until"]
    return not session["finished"] and until is not None and until <= tx.clock


def _pause(p: Parameters, failure_count: int) -> timedelta:
    seconds = timedelta(seconds=1) * (2 ** min(failure_count, 20) - 1)
    return min(p["longest_pause"], seconds)  # type: ignore[no-any-return]


def claim_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    waiting = [
        session
        for session in tx.rows("sessions")
        if not session["finished"]
        and session["not_before"] <= tx.clock
        and session["lease_until"] is None
        and (session["chunk_time"] is not None or session["state"] != "OPEN")
    ]
    waiting.sort(key=lambda session: session["not_before"])
    return [
        tx.update(
            "sessions",
            session["session_id"],
            session,
            {
                "attempt": session["attempt"] + 1,
                "lease_time": tx.clock,
                "lease_until": tx.clock + p["lease"],
            },
        )
        for session in _free_sessions(tx, waiting, p["limit"])
    ]


def held_leases(tx: Transaction, p: Parameters) -> Sequence[Row]:
    held = zip(p["session_ids"], p["attempts"], strict=True)
    sessions = ((tx.get("sessions", session_id), attempt) for session_id, attempt in held)
    return [
        session
        for session, attempt in sessions
        if session is not None
        and session["attempt"] == attempt
        and session["lease_until"] is not None
    ]


def renew_leases(tx: Transaction, p: Parameters) -> Sequence[Row]:
    def failures(session: Row) -> Any:
        forgiven = session["lease_time"] <= tx.clock - p["forgiven_after"]
        return 0 if forgiven else session["failure_count"]

    return [
        tx.update(
            "sessions",
            session["session_id"],
            session,
            {"lease_until": tx.clock + p["lease"], "failure_count": failures(session)},
        )
        for session in _free_sessions(tx, held_leases(tx, p))
    ]


def end_leases(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for session in _free_sessions(tx, held_leases(tx, p)):
        _end_lease(tx, session)
    return []


def end_lease(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session = _locked_if(tx, p, lambda session: _holds(session, p))
    if session is not None:
        _end_lease(tx, session)
    return []


def _end_lease(tx: Transaction, session: Row) -> None:
    changes = {"lease_until": None, "not_before": tx.clock}
    tx.update("sessions", session["session_id"], session, changes)


def park_session(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session = _locked_if(tx, p, lambda session: _holds(session, p))
    if session is not None:
        count = session["failure_count"] + 1
        changes = {
            "lease_until": None,
            "failure_count": count,
            "failure_reason": p["reason"],
            "failure_message": p["message"],
            "not_before": tx.clock + _pause(p, count),
        }
        tx.update("sessions", p["session_id"], session, changes)
    return []


def _holds(session: Row, p: Parameters) -> bool:
    return session["attempt"] == p["attempt"] and session["lease_until"] is not None


def retry_now(tx: Transaction, p: Parameters) -> Sequence[Row]:
    session = _locked_if(
        tx,
        p,
        lambda session: not session["finished"] and session["not_before"] > tx.clock,
    )
    if session is not None:
        tx.update("sessions", p["session_id"], session, {"not_before": tx.clock})
    return []


# Removals


def _removal(row: Row) -> Row:
    return {
        "removal_id": row["removal_id"],
        "object_key": row["object_prefix"],
        "multipart_id": None,
    }


def add_removal(tx: Transaction, p: Parameters) -> Sequence[Row]:
    removal_id = UUID(int=tx.server.loop.random.getrandbits(128), version=4)
    row = {
        "removal_id": removal_id,
        "object_prefix": p["object_key"],
        "due_time": tx.now + p["delay"],
        "done_once": False,
    }
    tx.insert("removals", removal_id, row)
    return [_removal(row)]


def add_later_removal(tx: Transaction, p: Parameters) -> Sequence[Row]:
    if any(row["object_prefix"] == p["object_prefix"] for row in tx.rows("removals")):
        return []
    return add_removal(tx, {"object_key": p["object_prefix"], "delay": p["after"]})


def claim_removals(tx: Transaction, p: Parameters) -> Sequence[Row]:
    due = sorted(
        (row for row in tx.rows("removals") if row["due_time"] <= tx.now),
        key=lambda row: row["due_time"],
    )
    claimed = {"due_time": tx.now + timedelta(minutes=1)}
    return [
        _removal(tx.update("removals", row["removal_id"], row, claimed))
        for row in free(tx, "removals", due, _KEYS["removals"], 20)
    ]


def settle_removal(tx: Transaction, p: Parameters) -> Sequence[Row]:
    removal = locked(tx, "removals", p["removal_id"])
    if removal is None:
        return []
    if removal["done_once"]:
        tx.delete("removals", p["removal_id"])
    else:
        changes = {"done_once": True, "due_time": tx.now + p["pause"]}
        tx.update("removals", p["removal_id"], removal, changes)
    return []


def untrimmed_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [
        session
        for session in old_sessions(tx, p)
        if not session["trimmed"] and session["update_time"] <= tx.now - p["after"]
    ]


def old_sessions(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = (
        session
        for session in tx.rows("sessions")
        if session["finished"]
        and session["end_time"] is not None
        and session["end_time"] <= tx.now - p["after"]
    )
    return sorted(found, key=lambda session: session["end_time"])[:1000]


def _trim(table: str) -> Statement:
    def trim(tx: Transaction, p: Parameters) -> Sequence[Row]:
        rows = [row for row in tx.rows(table) if row["session_id"] == p["session_id"]]
        rows = rows[: p["limit"]]
        for row in rows:
            tx.lock(table, _KEYS[table](row))
        for row in rows:
            tx.delete(table, _KEYS[table](row))
        return rows

    return trim


def mark_trimmed(tx: Transaction, p: Parameters) -> Sequence[Row]:
    left = (_of(tx, table, p) for table in sql.TRIM_SESSION)
    session = tx.get("sessions", p["session_id"])
    if session is None or any(left):
        return []
    session = locked(tx, "sessions", p["session_id"])
    if session is not None:
        tx.update("sessions", p["session_id"], session, {"trimmed": True})
    return []


# What the functions above are made of


def _locked_if(tx: Transaction, p: Parameters, condition: Callable[[Row], bool]) -> Row | None:
    """A session, locked, if something is true of it now and then."""
    session = tx.get("sessions", p["session_id"])
    if session is None or not condition(session):
        return None
    session = locked(tx, "sessions", p["session_id"])
    return session if session is not None and condition(session) else None


def _free_sessions(tx: Transaction, sessions: Iterable[Row], limit: int | None = None) -> list[Row]:
    return free(tx, "sessions", sessions, _KEYS["sessions"], limit)


def _of(
    tx: Transaction,
    table: str,
    p: Parameters,
    order: str = "",
    where: Callable[[Row], bool] = lambda row: True,
) -> list[Row]:
    """A session's rows of a table."""
    found = [row for row in tx.rows(table) if row["session_id"] == p["session_id"] and where(row)]
    return sorted(found, key=lambda row: row[order]) if order else found


def _columns(rows: Iterable[Row], *names: str) -> list[Row]:
    return [{name: row[name] for name in names} for row in rows]


# What the schema refuses


def rules(tx: Transaction, table: str, old: Row | None, new: Row | None) -> str:
    """What is wrong with a change of a row, or "": the constraints and triggers."""
    if new is None:
        return ""
    if table in _OF_SESSIONS and tx.get("sessions", new["session_id"]) is None:
        return "it belongs to a session"
    match table:
        case "sessions":
            return _wrong_with_session(old, new)
        case "chunks":
            return _wrong_with_chunk(old, new)
        case "pieces":
            if old is not None:
                return "a piece never changes"
            fits = new["start_frame"] >= 0 and new["object_offset"] >= 0
            return "" if fits and new["frame_count"] > 0 else "a constraint of pieces is broken"
        case "parts":
            fits = new["number"] >= 0 and new["frame_count"] > 0
            return "" if fits else "a constraint of parts is broken"
        case "gaps":
            fits = new["last_sequence"] >= new["first_sequence"]
            return "" if fits else "a constraint of gaps is broken"
        case "events":
            return _wrong_with_event(old, new)
    return ""


def _wrong_with_session(old: Row | None, new: Row) -> str:
    if old is not None:
        if old["state"] not in ("OPEN", new["state"]):
            return "a session that has ended stays as it is"
        if any(new[name] < old[name] for name in ("epoch", "attempt")):
            return "fencing tokens only rise"
        if any(
            new[name] < old[name] for name in ("frame_count", "next_sequence", "live_frame_count")
        ) or (old["drained"] and new["frame_count"] != old["frame_count"]):
            return "a recording only grows, and not after its end"
    if (new["end_time"] is None) != (new["state"] == "OPEN") or (new["error_reason"] is None) != (
        new["error_message"] is None
    ):
        return "a constraint of sessions is broken"
    return ""


def _wrong_with_chunk(old: Row | None, new: Row) -> str:
    if old is not None and (
        old["start_byte"] is not None
        or any(
            new[name] != old[name]
            for name in ("sha256", "size_bytes", "object_key", "object_offset")
        )
    ):
        return "a chunk never changes"
    fits = new["sequence"] >= 0 and new["size_bytes"] > 0 and new["object_offset"] >= 0
    return "" if fits else "a constraint of chunks is broken"


def _wrong_with_event(old: Row | None, new: Row) -> str:
    if old is not None and (not new["published"] or new["payload"] != old["payload"]):
        return "an event does not change"
    return "" if new["revision"] > 0 else "a constraint of events is broken"


def missing_at_commit(tx: Transaction) -> str:
    """No foreign key is looked at only then."""
    return ""


# All of them

NOT_SIMULATED = {"STATISTICS"}
"""What is only measured."""

_NO_POOL: Any = None
REMOVALS = Store(_NO_POOL).removals.statements

STATEMENTS = (
    statements_of(globals(), sql, without=NOT_SIMULATED)
    | {text: (f"TRIM_{table.upper()}", _trim(table)) for table, text in sql.TRIM_SESSION.items()}
    | {
        REMOVALS.add: ("ADD_REMOVAL", add_removal),
        REMOVALS.claim: ("CLAIM_REMOVALS", claim_removals),
        REMOVALS.settle: ("SETTLE_REMOVAL", settle_removal),
    }
)
