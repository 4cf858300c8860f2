"""The database itself refuses what must not happen to a session, whoever asks."""

from __future__ import annotations

import psycopg
import pytest

from rows import Rows
from steno.concatenation.domain import SESSION_MOVES, SessionState

SESSION = "11111111-1111-4111-8111-111111111111"

SESSION_IN = {
    "OPEN": "",
    "CLOSED": "UPDATE concatenation.sessions SET state = 'CLOSED', end_time = now();",
    "EXPIRED": "UPDATE concatenation.sessions SET state = 'EXPIRED', end_time = now();",
}

TO_STATE = {
    "OPEN": "state = 'OPEN', end_time = NULL",
    "CLOSED": "state = 'CLOSED', end_time = now()",
    "EXPIRED": "state = 'EXPIRED', end_time = now()",
}


@pytest.fixture
def session(rows: Rows) -> str:
    rows(
        "INSERT INTO concatenation.sessions (session_id, display_name, labels, encoding,"
        " sample_rate_hertz, channel_count, chunk_form, language_code, live_results,"
        " interim_results, endpointing_silence, idle_timeout, max_duration, gap_timeout, final_job,"
        f" final_job_config) VALUES ('{SESSION}', '', '{{}}', 'LINEAR16', 16000, 1, 'STREAM', '',"
        " true, true, '1 s', '1 h', '1 h', '1 s', true, '')"
    )
    return SESSION


def add_chunk(rows: Rows, session: str, sequence: int, size: int = 8, offset: int = 0) -> None:
    rows(
        "INSERT INTO concatenation.chunks (session_id, sequence, sha256, size_bytes, object_key,"
        " object_offset) VALUES (%s, %s, 'x', %s, 'x', %s)",
        *(session, sequence, size, offset),
    )


def add_piece(rows: Rows, session: str, start: int, frames: int, offset: int = 0) -> None:
    rows(
        "INSERT INTO concatenation.pieces (session_id, start_frame, frame_count, object_key,"
        " object_offset) VALUES (%s, %s, %s, 'x', %s)",
        *(session, start, frames, offset),
    )


def add_event(rows: Rows, session: str, revision: int) -> None:
    rows(
        "INSERT INTO concatenation.events (session_id, revision, payload) VALUES (%s, %s, 'x')",
        *(session, revision),
    )


def refused(rows: Rows, statement: str, *parameters: object) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        rows(statement, *parameters)


def update(change: str) -> str:
    return f"UPDATE concatenation.sessions SET {change}"


def test_a_session_makes_exactly_the_moves_of_the_state_machine(session: str, rows: Rows) -> None:
    for here, arrive in SESSION_IN.items():
        for there, change in TO_STATE.items():
            statement = f"BEGIN; {arrive} {update(change)}; ROLLBACK;"
            if here == there or SessionState(there) in SESSION_MOVES.get(SessionState(here), ()):
                rows(statement)
            else:
                refused(rows, statement)


def test_a_session_holds_together(session: str, rows: Rows) -> None:
    for change in (
        "state = 'ASLEEP'",
        "state = 'CLOSED'",
        "end_time = now()",
        "error_reason = 'x'",
        "error_message = 'x'",
        "encoding = 'OPUS'",
        "chunk_form = 'OTHER'",
        "recording_format = 'RF64'",
    ):
        refused(rows, update(change))


def test_fencing_tokens_only_rise(session: str, rows: Rows) -> None:
    rows(update("epoch = 5, attempt = 5"))

    refused(rows, update("epoch = 4"))
    refused(rows, update("attempt = 4"))
    rows(update("epoch = 6, attempt = 6"))


def test_a_recording_only_grows(session: str, rows: Rows) -> None:
    rows(update("frame_count = 5, next_sequence = 5, live_frame_count = 5"))

    for column in ("frame_count", "next_sequence", "live_frame_count"):
        refused(rows, update(f"{column} = 4"))
        rows(update(f"{column} = 6"))


def test_a_recording_does_not_grow_after_its_end(session: str, rows: Rows) -> None:
    rows(update("frame_count = 5, drained = true"))

    refused(rows, update("frame_count = 6"))
    rows(update("live_frame_count = 5"))


def test_a_chunk_holds_together_and_comes_once(session: str, rows: Rows) -> None:
    add_chunk(rows, session, 0)

    for sequence, size, offset in ((0, 8, 0), (-1, 8, 0), (1, 0, 0), (1, 8, -1)):
        with pytest.raises(psycopg.errors.IntegrityError):
            add_chunk(rows, session, sequence, size, offset)


def test_a_chunk_never_changes_and_has_one_place_in_its_container(session: str, rows: Rows) -> None:
    add_chunk(rows, session, 0)
    changes = ("sha256 = 'y'", "size_bytes = 9", "object_key = 'y'", "object_offset = 1")

    for change in changes:
        refused(rows, f"UPDATE concatenation.chunks SET {change}")
    rows("UPDATE concatenation.chunks SET start_byte = 0")
    for change in (*changes, "start_byte = 1", "start_byte = NULL"):
        refused(rows, f"UPDATE concatenation.chunks SET {change}")


def test_a_piece_holds_together_and_never_changes(session: str, rows: Rows) -> None:
    add_piece(rows, session, 0, 8)

    for start, frames, offset in ((0, 8, 0), (-1, 8, 0), (8, 0, 0), (8, 8, -1)):
        with pytest.raises(psycopg.errors.IntegrityError):
            add_piece(rows, session, start, frames, offset)
    for change in ("frame_count = 9", "object_key = NULL", "object_offset = 1", "start_frame = 9"):
        refused(rows, f"UPDATE concatenation.pieces SET {change}")


def test_a_part_holds_together_and_shares_its_object_with_no_other(
    session: str, rows: Rows
) -> None:
    insert = (
        "INSERT INTO concatenation.parts (session_id, number, start_frame, frame_count, object_key)"
        " VALUES (%s, %s, 0, %s, %s)"
    )
    rows(insert, session, 0, 8, "x")

    for number, frames, key in ((0, 8, "y"), (1, 8, "x"), (-1, 8, "y"), (1, 0, "y")):
        refused(rows, insert, session, number, frames, key)


def test_a_gap_holds_together_and_is_there_once(session: str, rows: Rows) -> None:
    insert = (
        "INSERT INTO concatenation.gaps (session_id, first_sequence, last_sequence, cause)"
        " VALUES (%s, %s, %s, %s)"
    )
    rows(insert, session, 0, 0, "MISSING")

    for first, last, cause in ((0, 0, "MISSING"), (2, 1, "MISSING"), (2, 2, "OTHER")):
        refused(rows, insert, session, first, last, cause)


def test_an_event_does_not_change_but_that_it_is_published(session: str, rows: Rows) -> None:
    add_event(rows, session, 1)

    for revision in (0, 1):
        with pytest.raises(psycopg.errors.IntegrityError):
            add_event(rows, session, revision)
    for change in ("payload = 'y'", "revision = 9", "payload = 'y', published = true"):
        refused(rows, f"UPDATE concatenation.events SET {change}")
    rows("UPDATE concatenation.events SET published = true")
    refused(rows, "UPDATE concatenation.events SET published = false")


def test_a_request_has_one_session(session: str, rows: Rows) -> None:
    insert = (
        "INSERT INTO concatenation.request_ids (request_id, fingerprint, session_id)"
        f" VALUES ('{SESSION}', %s, '{SESSION}')"
    )
    rows(insert, "one body")

    refused(rows, insert, "another body")


@pytest.mark.parametrize("table", ["chunks", "pieces", "events"])
def test_what_belongs_to_a_session_goes_with_it(session: str, rows: Rows, table: str) -> None:
    add_chunk(rows, session, 0)
    add_piece(rows, session, 0, 8)
    add_event(rows, session, 1)

    rows("DELETE FROM concatenation.sessions")

    assert rows(f"SELECT * FROM concatenation.{table}") == []
