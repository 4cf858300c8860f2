"""How sessions change: what is taken, put in order, waited for, recorded, and told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from steno.concatenation import domain
from steno.concatenation.domain import (
    SESSION_MOVES,
    ChunkForm,
    DecodingError,
    Encoding,
    Gap,
    GapCause,
    IllegalMove,
    Ordered,
    Part,
    Piece,
    Session,
    SessionNotOpen,
    SessionState,
    SessionTooLong,
    Sound,
    StateChanged,
    StoredChunk,
    Unplaced,
    WriterChanged,
    WriterReplaced,
    events_between,
)

from .conftest import CONFIG, SESSION

RAW = replace(
    CONFIG,
    encoding=Encoding.LINEAR16,
    chunk_form=ChunkForm.STREAM,
    sample_rate_hertz=8000,
    channel_count=2,
)
FRAME_BYTES = 4
OPEN = replace(SESSION, config=RAW, state=SessionState.OPEN, end_time=None, revision=0)
FILES = replace(OPEN, config=CONFIG)
STREAM = replace(OPEN, config=replace(CONFIG, chunk_form=ChunkForm.STREAM))
CLOSED = replace(OPEN, state=SessionState.CLOSED)


def chunk(sequence: int, frames: int = 10, key: str = "", offset: int = 0) -> StoredChunk:
    key = key or f"object {sequence}"
    return StoredChunk(sequence, f"{sequence}".encode(), frames * FRAME_BYTES, key, offset)


def appended(session: Session, *sequences: int, held_frames: int = 0) -> Session:
    fresh = [chunk(sequence) for sequence in sequences]
    return session.appended(fresh, held_frames * FRAME_BYTES)


def in_order(session: Session, *chunks: StoredChunk) -> Ordered:
    last = max(each.sequence for each in chunks)
    return replace(session, max_sequence=last).ordered(chunks)


def limited_to(session: Session, frames: int) -> Session:
    longest = timedelta(seconds=frames / session.format.rate_hertz)
    return replace(session, config=replace(session.config, max_duration=longest))


def test_a_chunk_that_is_not_there_is_taken() -> None:
    accepted = OPEN.accepted(None, [chunk(0), chunk(2)], {})

    assert accepted.fresh == [chunk(0), chunk(2)]
    assert accepted.sequences == [0, 2]
    assert not accepted.refusals


def test_the_same_bytes_again_are_answered_as_before_and_not_taken_twice() -> None:
    accepted = OPEN.accepted(None, [chunk(0), chunk(1), chunk(1)], {0: chunk(0).sha256})

    assert accepted.fresh == [chunk(1)]
    assert accepted.sequences == [0, 1, 1]


def test_other_bytes_of_a_sequence_are_refused_and_the_rest_is_taken() -> None:
    other = replace(chunk(1), sha256=b"other")

    accepted = OPEN.accepted(None, [chunk(0), chunk(1), other], {0: b"other"})

    assert accepted.sequences == [1]
    assert [(each.sequence, each.error.reason) for each in accepted.refusals] == [
        (0, "SEQUENCE_REUSED"),
        (1, "SEQUENCE_REUSED"),
    ]


def test_a_chunk_is_late_once_silence_stands_in_its_place() -> None:
    session = replace(OPEN, next_sequence=3, max_sequence=3)

    [refusal] = session.accepted(None, [chunk(2)], {}).refusals

    assert refusal.error.reason == "CHUNK_LATE"


def test_a_chunk_may_be_a_window_ahead_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "WINDOW_CHUNKS", 5)
    session = replace(OPEN, next_sequence=3)

    accepted = session.accepted(None, [chunk(7), chunk(8)], {})

    assert accepted.sequences == [7]
    assert [each.error.reason for each in accepted.refusals] == ["TOO_FAR_AHEAD"]


def test_a_stream_that_was_replaced_writes_nothing_more() -> None:
    session = replace(OPEN, epoch=2)

    with pytest.raises(WriterReplaced):
        session.accepted(1, [chunk(0)], {})
    assert session.accepted(2, [chunk(0)], {}).fresh
    assert session.accepted(None, [chunk(0)], {}).fresh


def test_a_session_that_has_ended_answers_what_is_there_and_takes_nothing_new() -> None:
    known = {0: chunk(0).sha256}

    assert CLOSED.accepted(None, [chunk(0)], known).sequences == [0]
    with pytest.raises(SessionNotOpen):
        CLOSED.accepted(None, [chunk(0), chunk(1)], known)


def test_a_recording_has_a_longest_duration() -> None:
    session = limited_to(OPEN, 20)

    appended(replace(session, frame_count=19), 0)
    with pytest.raises(SessionTooLong, match="reached max_duration"):
        appended(replace(session, frame_count=20), 0)


def test_what_waits_for_a_missing_chunk_counts_as_recorded() -> None:
    session = limited_to(replace(OPEN, frame_count=10), 20)

    appended(session, 3, held_frames=9)
    with pytest.raises(SessionTooLong):
        appended(session, 3, held_frames=10)


def test_the_greatest_sequence_that_has_come_is_known() -> None:
    assert appended(OPEN, 5, 2).max_sequence == 5
    assert appended(replace(OPEN, max_sequence=9), 5, 2).max_sequence == 9


def test_chunks_without_a_hole_become_part_of_the_recording_and_the_rest_waits() -> None:
    session = replace(OPEN, next_sequence=1, frame_count=10, byte_count=40)

    ordered = in_order(session, chunk(1, 3), chunk(2, 5), chunk(4))

    assert ordered.count == 2
    assert ordered.pieces == [Piece(10, 3, "object 1", 0), Piece(13, 5, "object 2", 0)]
    assert ordered.session.next_sequence == 3
    assert ordered.session.frame_count == 18
    assert ordered.session.byte_count == 40 + 8 * FRAME_BYTES
    assert ordered.session.chunk_frame_count == 5
    assert ordered.session.waits


def test_nothing_is_put_in_order_while_the_next_chunk_is_missing() -> None:
    ordered = in_order(OPEN, chunk(1))

    assert (ordered.count, ordered.pieces) == (0, ())
    assert ordered.session.next_sequence == 0


def test_neighbours_in_one_object_are_one_piece() -> None:
    chunks = [chunk(0, 3, "one"), chunk(1, 5, "one", 12), chunk(2, 1, "one", 50)]

    assert in_order(OPEN, *chunks).pieces == [Piece(0, 8, "one", 0), Piece(8, 1, "one", 50)]


def test_a_container_must_be_decoded_before_it_is_recorded() -> None:
    ordered = in_order(FILES, chunk(0), chunk(1))

    assert (ordered.count, ordered.pieces, ordered.start_bytes) == (2, (), {})
    assert (ordered.session.next_sequence, ordered.session.frame_count) == (2, 0)


def test_chunks_of_a_streamed_container_know_where_they_lie_in_it() -> None:
    session = replace(STREAM, byte_count=100)

    ordered = in_order(session, chunk(0, 3), chunk(1, 5))

    assert ordered.start_bytes == {0: 100, 1: 112}
    assert ordered.session.byte_count == 132


def test_a_missing_chunk_counts_as_long_as_the_one_before_it() -> None:
    session = replace(OPEN, next_sequence=2, max_sequence=5, frame_count=8, chunk_frame_count=4)

    passed, gap = session.passed_over(5, 100 * FRAME_BYTES)

    assert gap == Gap(2, 4, 8, 12, GapCause.MISSING)
    assert passed.next_sequence == 5
    assert (passed.frame_count, passed.gap_frame_count) == (20, 12)


def test_a_missing_first_chunk_counts_as_long_as_the_one_after_it() -> None:
    _, gap = replace(OPEN, max_sequence=1).passed_over(1, 7 * FRAME_BYTES)

    assert gap == Gap(0, 0, 0, 7, GapCause.MISSING)


def test_silence_makes_no_recording_longer_than_it_may_become() -> None:
    session = limited_to(replace(OPEN, frame_count=8, chunk_frame_count=4), 10)

    passed, gap = session.passed_over(3, FRAME_BYTES)

    assert isinstance(gap, Gap)
    assert (gap.frame_count, passed.frame_count) == (2, 10)


@pytest.mark.parametrize("session", [FILES, STREAM])
def test_the_gap_of_a_container_has_its_place_when_what_is_before_it_is_decoded(
    session: Session,
) -> None:
    passed, gap = replace(session, frame_count=8).passed_over(2, 100)

    assert gap == Unplaced(0, 1)
    assert (passed.next_sequence, passed.frame_count) == (2, 8)


def test_decoded_sound_follows_what_is_recorded() -> None:
    session = replace(FILES, frame_count=10, chunk_frame_count=10)

    decoded, pieces = session.decoded([Sound("a", 3), Sound("b", 4)], 2)

    assert pieces == [Piece(10, 3, "a", 0), Piece(13, 4, "b", 0)]
    assert (decoded.frame_count, decoded.chunk_frame_count) == (17, 7)
    assert decoded.decoded_sequence == 2


def test_a_file_without_sound_does_not_count_for_the_length_of_the_next_gap() -> None:
    decoded, _ = replace(FILES, frame_count=10, chunk_frame_count=10).decoded([], 2)

    assert (decoded.chunk_frame_count, decoded.decoded_sequence) == (10, 2)


def test_silence_takes_the_place_of_files_that_can_not_be_decoded() -> None:
    session = replace(FILES, decoded_sequence=1, frame_count=10)

    undecoded, gap = session.undecoded(2, 5, GapCause.UNDECODABLE)

    assert gap == Gap(1, 2, 10, 10, GapCause.UNDECODABLE)
    assert undecoded.decoded_sequence == 3
    assert (undecoded.frame_count, undecoded.gap_frame_count) == (20, 10)


@pytest.mark.parametrize(("start", "frames"), [(4, 4), (8, 2), (12, 0)])
def test_the_silence_of_a_streamed_container_lies_within_what_is_recorded(
    start: int, frames: int
) -> None:
    session, gap = replace(STREAM, frame_count=10).placed(Gap(3, 3, start, 4, GapCause.MISSING))

    assert (gap.start_frame, gap.frame_count) == (min(start, 10), frames)
    assert (session.gap_frame_count, session.frame_count) == (frames, 10)


@pytest.mark.parametrize("state", [SessionState.CLOSED, SessionState.EXPIRED])
def test_a_session_that_has_ended_stays_as_it_is(state: SessionState) -> None:
    ended = OPEN.ended(state)

    assert ended.state is state
    assert all(ended.ended(other) == ended for other in SessionState)


def test_no_session_is_opened_again() -> None:
    with pytest.raises(IllegalMove):
        OPEN.ended(SessionState.OPEN)
    assert set(SESSION_MOVES) == {SessionState.OPEN}


def test_raw_samples_are_all_recorded_at_the_end_and_a_container_may_still_be_decoded() -> None:
    raw = replace(OPEN, next_sequence=1, max_sequence=0)
    container = replace(FILES, next_sequence=1, max_sequence=0)

    assert raw.ended(SessionState.CLOSED).drained
    assert not container.ended(SessionState.CLOSED).drained
    assert FILES.ended(SessionState.CLOSED).drained  # nothing has come


def test_what_can_not_be_decoded_ends_the_session_and_is_told() -> None:
    error = DecodingError("UNSUPPORTED_FORMAT", "It is no audio.")

    completed = STREAM.completed(error)
    expired = replace(STREAM, state=SessionState.EXPIRED).completed(error)

    assert (completed.state, completed.error, completed.drained) == ("CLOSED", error, True)
    assert (expired.state, expired.error) == ("EXPIRED", error)
    assert STREAM.completed().state is SessionState.OPEN


def test_a_part_is_joined_to_those_before() -> None:
    joined = replace(OPEN, part_count=1, joined_frame_count=8).joined(Part(1, 8, 5, "key"))

    assert (joined.part_count, joined.joined_frame_count) == (2, 13)


def test_live_results_go_on_and_keep_the_first_language() -> None:
    first = OPEN.transcribed(2, 100, "en")

    assert (first.live_segment_count, first.live_frame_count) == (2, 100)
    assert first.transcribed(1, 50, "de").live_frame_count == 100
    assert first.transcribed(1, 200, "de").live_language_code == "en"


def test_a_file_that_is_there_is_adopted_as_the_recording() -> None:
    adopted = replace(CLOSED, frame_count=10).adopted(12, "The chunks are gone.")

    assert (adopted.frame_count, adopted.drained) == (12, True)
    assert (adopted.live_done, adopted.live_error) == (True, "The chunks are gone.")
    known = replace(CLOSED, frame_count=10, drained=True, live_done=True)
    assert known.adopted(12, "The chunks are gone.") == known


def told(before: Session | None, after: Session, added: Sequence[Gap] = ()) -> Sequence[object]:
    return events_between(before, after, added)[1]


def test_a_session_that_was_opened_is_told() -> None:
    session, events = events_between(None, OPEN)

    assert (session.revision, events) == (1, [StateChanged()])


@pytest.mark.parametrize(
    "change",
    [
        {"state": SessionState.CLOSED},
        {"error": DecodingError("x", "y")},
        {"live_error": "It failed."},
        {"audio_id": UUID(int=1)},
        {"job_id": UUID(int=1)},
        {"job_error": "There is no model."},
    ],
)
def test_a_change_of_state_is_told(change: dict[str, Any]) -> None:
    assert told(OPEN, replace(OPEN, **change)) == [StateChanged()]


def test_what_only_makes_a_session_longer_is_not_told() -> None:
    longer = replace(OPEN, frame_count=10, next_sequence=2, part_count=1, drained=True)

    assert events_between(OPEN, longer) == (longer, [])


def test_another_writer_is_told() -> None:
    assert told(OPEN, OPEN.taken_over(0, None)) == [WriterChanged(2)]


def test_gaps_come_before_the_end_and_each_event_has_a_revision() -> None:
    gaps = [Gap(0, 0, 0, 5, GapCause.MISSING), Gap(2, 2, 9, 5, GapCause.MISSING)]

    session, events = events_between(OPEN, replace(OPEN, state=SessionState.CLOSED), gaps)

    assert events == [*gaps, StateChanged()]
    assert session.revision == 3
