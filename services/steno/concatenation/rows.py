"""Rows of the database as the domain's values."""

from __future__ import annotations

import dataclasses
from typing import Any

from psycopg.rows import DictRow

from steno.concatenation.domain import (
    ChunkForm,
    DecodingError,
    Encoding,
    Parking,
    RecordingFormat,
    Session,
    SessionConfig,
    SessionState,
)

CONFIG = tuple(f.name for f in dataclasses.fields(SessionConfig))
"""The columns that a session is opened with, and keeps, as its config."""

_PLAIN = tuple(
    f.name
    for f in dataclasses.fields(Session)
    if f.name not in ("config", "state", "error", "parking")
)
_STATE = ("state", "error_reason", "error_message")
_PARKING = ("failure_count", "failure_reason", "failure_message", "not_before", "lease_until")

SESSION = (*_PLAIN, *CONFIG, *_STATE, *_PARKING)
"""The columns that a session is read from."""

_GIVEN = ("session_id", "display_name", "labels", "tenant", "create_time")
_CLOCKED = ("update_time", "end_time")

SAVED = (*_STATE, *(name for name in _PLAIN if name not in (*_GIVEN, *_CLOCKED)))
"""The columns that are written when a session has changed; its times are the database's."""


def session_of(row: DictRow) -> Session:
    """Reads a row of concatenation.sessions."""
    config = {name: row[name] for name in CONFIG}
    config |= {
        "encoding": Encoding(row["encoding"]),
        "chunk_form": ChunkForm(row["chunk_form"]),
        "final_job_config": bytes(row["final_job_config"]),
        "recording_format": RecordingFormat(row["recording_format"]),
    }
    reason = row["error_reason"]
    return Session(
        **{name: row[name] for name in _PLAIN},
        config=SessionConfig(**config),
        state=SessionState(row["state"]),
        error=DecodingError(reason, row["error_message"]) if reason is not None else None,
        parking=_parking_of(row),
    )


def _parking_of(row: DictRow) -> Parking | None:
    if row["finished"] or not row["failure_count"]:
        return None
    return Parking(
        reason=row["failure_reason"],
        message=row["failure_message"],
        failure_count=row["failure_count"],
        next_attempt_time=row["not_before"] if row["lease_until"] is None else None,
    )


def columns_of(session: Session) -> dict[str, Any]:
    """A session's columns that may change, for SAVE_SESSION."""
    return {name: getattr(session, name) for name in _PLAIN} | {
        "state": session.state,
        "error_reason": session.error and session.error.reason,
        "error_message": session.error and session.error.message,
    }
