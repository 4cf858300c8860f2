"""The checker finds what it is there for: histories in which one thing is wrong, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from faults.calls import seen_of_runs
from faults.history import History, Told
from faults.oracle import CHUNK_BLOCKS, Run, heard_in, samples_of
from faults.promises import Final, findings

BLOCKS = 400
RIGHT = heard_in(samples_of(1, 0, BLOCKS), "p")


class Story:
    """A history that is told by hand."""

    def __init__(self) -> None:
        self.history = History()
        self.final = Final()

    def tell(
        self, what: str, told: Told = "ok", answer: dict[str, Any] | None = None, **asked: Any
    ) -> Story:
        operation = self.history.begin("client", what, **asked)
        self.history.end(operation, told, **(answer or {}))
        return self

    def job(self, state: str = "SUCCEEDED", text: str = RIGHT) -> Story:
        """A job from its beginning to its end, and what its transcript says."""
        self.made()
        self.look(state)
        if state == "SUCCEEDED":
            self.read(text)
        return self

    def made(self, job_id: str = "j", request: str = "r") -> Story:
        return self.tell(
            "create_jobs",
            answer={"job_ids": [job_id]},
            jobs=[{"request_id": request, "options": "p"}],
            **_sound(BLOCKS),
        )

    def look(self, state: str, revision: int = 1, fraction: float | None = None) -> Story:
        if fraction is None:
            fraction = 1.0 if state == "SUCCEEDED" else 0.5
        answer = {"state": state, "revision": revision, "fraction": fraction, "error": ""}
        return self.tell("get_job", answer=answer, job_id="j")

    def read(self, text: str, digest: str = "d") -> Story:
        return self.tell("get_transcript", answer={"text": text, "digest": digest}, job_id="j")

    def watched(self, *events: tuple[int, str], after: int = 0) -> Story:
        seen = [_event(revision, digest) for revision, digest in events]
        return self.tell("watch_job", answer={"events": seen}, job_id="j", after=after)

    def session(
        self,
        acked: Sequence[int],
        runs: Sequence[Run],
        unsent: Sequence[int] = (),
        form: str = "",
        *,
        live: bool = False,
    ) -> Story:
        """A session whose chunks were acknowledged, and what its recording holds."""
        missing = [(sequence * CHUNK_BLOCKS, CHUNK_BLOCKS) for sequence in unsent]
        sound = {**_sound(CHUNK_BLOCKS * (max(acked) + 1)), "missing": missing}
        self.tell(
            "create_session",
            answer={"session_id": "s"},
            request_id="q",
            options="p",
            final_job=False,
            live=live,
            form=form,
            chunk_blocks=CHUNK_BLOCKS,
            **sound,
        )
        for sequence in acked:
            self.tell("append_chunk", session_id="s", sequence=sequence)
        answer = {"state": "CLOSED", "audio_id": "a", "job_id": "", "error": ""}
        self.tell("close_session", session_id="s")
        self.tell("get_session", answer=answer, session_id="s")
        return self.tell("read_recording", answer=seen_of_runs(runs), session_id="s")

    def heard(self, *texts: str) -> Story:
        """What a watcher was told of the session."""
        events = [_event(number, "d", text=text) for number, text in enumerate(texts, 1)]
        return self.tell("watch_session", answer={"events": events}, session_id="s", after=0)

    def played(self, runs: Sequence[Run], *, ended: bool) -> Story:
        answer = seen_of_runs(runs) | {"ended": ended}
        return self.tell("read_playlist", answer=answer, session_id="s")

    @property
    def found(self) -> list[tuple[str, str]]:
        """Which promises are broken, and how that counts."""
        return [(f.promise, f.kind) for f in findings(self.history, self.final)]


def _sound(blocks: int) -> dict[str, Any]:
    return {"file": 1, "blocks": blocks, "missing": []}


def _event(revision: int, digest: str, state: str = "", text: str = "") -> dict[str, Any]:
    return {
        "revision": revision,
        "digest": digest,
        "state": state,
        "fraction": None,
        "text": text,
    }


def chunks(*sequences: int) -> list[Run]:
    return [Run(1, sequence * CHUNK_BLOCKS, CHUNK_BLOCKS) for sequence in sequences]


SILENT = Run(0, 0, CHUNK_BLOCKS)
JOB_ENDS = "every_accepted_job_ends_as_foretold"
LIVE = "live_results_tell_what_is_said_once"
ONE_RESULT = "a_job_has_one_result_the_computed_one"
WATCHED = "watchers_see_each_revision_once"
RECOGNIZED = "what_is_recognized_is_what_was_said"
GONE = "SESSION_NOT_FOUND"
PLAYED = "a_playlist_plays_the_recording"
RECORDED = "acknowledged_chunks_are_recorded_once_and_in_order"
ONE_EFFECT = "a_request_has_one_effect"
OBJECTS = "rows_and_objects_match"


def test_a_history_in_which_all_is_well_has_no_findings() -> None:
    story = Story().job().watched((1, "x"), (2, "y")).watched((2, "y"), after=1)
    assert story.session([0, 1, 2], chunks(0, 1, 2)).found == []


@pytest.mark.parametrize("state", ["RUNNING", "QUEUED", "FAILED", "CANCELLED"])
def test_a_job_that_does_not_end_as_foretold_is_lost(state: str) -> None:
    assert Story().job(state).found == [(JOB_ENDS, "lost")]


def test_a_job_that_nobody_could_read_is_lost() -> None:
    assert Story().made().found == [(JOB_ENDS, "lost")]


def test_a_job_that_vanished_is_lost_unless_somebody_deleted_it() -> None:
    gone = {"code": "NOT_FOUND", "reason": "JOB_NOT_FOUND"}
    vanished = Story().made().tell("get_job", "failed", gone, job_id="j")
    assert vanished.found == [(JOB_ENDS, "lost"), ("errors_are_documented", "other")]
    deleted = Story().made().tell("delete_job", "unknown", id="j")
    assert deleted.tell("get_job", "failed", gone, job_id="j").found == []


def test_a_cancelled_job_may_not_succeed() -> None:
    cancelled = {"state": "CANCELLED", "revision": 1, "fraction": 0.5, "error": ""}
    story = Story().made().tell("cancel_job", answer=cancelled, job_id="j").look("CANCELLED")
    assert story.found == []
    story.look("SUCCEEDED", revision=2).read(RIGHT)
    assert story.found == [(JOB_ENDS, "other")]


def test_a_job_may_or_may_not_be_cancelled_by_a_call_of_unknown_outcome() -> None:
    for state in ("CANCELLED", "SUCCEEDED"):
        story = Story().made().tell("cancel_job", "unknown", job_id="j").look(state)
        assert (story.read(RIGHT) if state == "SUCCEEDED" else story).found == []


def test_a_missing_segment_is_lost() -> None:
    half = heard_in(samples_of(1, 0, BLOCKS // 2), "p")
    assert Story().job(text=half).found == [(ONE_RESULT, "lost")]


def test_a_doubled_segment_is_doubled() -> None:
    assert Story().job(text=RIGHT + RIGHT).found == [(ONE_RESULT, "doubled")]


def test_segments_that_change_places_are_out_of_order() -> None:
    parts = [heard_in(samples_of(1, first, BLOCKS // 2), "p") for first in (BLOCKS // 2, 0)]
    assert Story().job(text="".join(parts)).found == [(ONE_RESULT, "out of order")]


def test_a_transcript_of_other_options_is_wrong() -> None:
    other = heard_in(samples_of(1, 0, BLOCKS), "q")
    assert Story().job(text=other).found == [(ONE_RESULT, "out of order")]


def test_a_transcript_never_changes_after_the_first_read() -> None:
    assert Story().job().read(RIGHT, digest="e").found == [(ONE_RESULT, "doubled")]


def test_a_hole_in_the_revisions_is_found() -> None:
    assert Story().job().watched((1, "x"), (3, "z")).found == [(WATCHED, "lost")]


def test_a_repeated_revision_is_found() -> None:
    assert Story().job().watched((1, "x"), after=1).found == [(WATCHED, "doubled")]


def test_two_replicas_that_tell_different_events_of_a_revision_are_found() -> None:
    assert Story().job().watched((1, "x")).watched((1, "y")).found == [(WATCHED, "doubled")]


def test_a_job_does_not_go_back() -> None:
    story = Story().made().look("RUNNING", revision=5).look("RUNNING", revision=4)
    assert ("a_job_moves_one_way", "other") in story.found


def test_a_lost_chunk_is_found() -> None:
    runs = [*chunks(0), SILENT, *chunks(2)]
    assert Story().session([0, 1, 2], runs).found == [(RECORDED, "lost")]


def test_a_chunk_that_was_never_sent_may_be_silent() -> None:
    runs = [*chunks(0), SILENT, *chunks(2)]
    assert Story().session([0, 2], runs, unsent=[1]).found == []


def test_a_doubled_chunk_is_found() -> None:
    assert (RECORDED, "doubled") in Story().session([0, 1], chunks(0, 1, 1)).found


def test_a_chunk_out_of_order_is_found() -> None:
    assert (RECORDED, "out of order") in Story().session([0, 1, 2], chunks(0, 2, 1)).found


def test_a_file_that_was_cut_anywhere_must_sound_as_it_did() -> None:
    assert Story().session([0, 1], chunks(0, 1), form="stream").found == []
    assert Story().session([0, 1], chunks(0), form="stream").found == [(RECORDED, "lost")]
    found = Story().session([0, 1], chunks(1, 0), form="stream").found
    assert found == [(RECORDED, "out of order")]


def test_a_playlist_is_a_beginning_of_the_recording_and_all_of_it_in_the_end() -> None:
    story = Story().session([0, 1, 2], chunks(0, 1, 2))
    story.played([], ended=False).played(chunks(0, 1), ended=False)
    assert story.played(chunks(0, 1, 2), ended=True).found == []
    assert story.played(chunks(0, 1), ended=True).found == [(PLAYED, "lost")]
    story = Story().session([0, 1, 2], chunks(0, 1, 2))
    assert story.played(chunks(0, 2), ended=False).found == [(PLAYED, "lost")]
    story = Story().session([0, 1, 2], chunks(0, 1, 2))
    assert story.played(chunks(0, 1, 1, 2), ended=False).found == [(PLAYED, "doubled")]


def test_live_results_tell_all_that_is_said_once_and_in_order() -> None:
    def told(*stretches: tuple[int, int]) -> list[tuple[str, str]]:
        story = Story().session([0, 1, 2], chunks(0, 1, 2), live=True)
        texts = [heard_in(samples_of(1, first, count), "") for first, count in stretches]
        return story.heard(*texts).found

    assert told((0, 100), (100, 140)) == []
    assert told((0, 100)) == [(LIVE, "lost")]
    assert told((0, 100), (90, 150)) == [(LIVE, "doubled")]
    assert told((100, 140), (0, 100)) == [(LIVE, "doubled")]
    pause = 200  # a chunk in which nobody speaks
    quiet = Story().session([pause], [Run(0, 0, pause * CHUNK_BLOCKS), *chunks(pause)], live=True)
    assert quiet.heard().found == []


def test_a_session_that_was_deleted_need_not_be_there() -> None:
    story = Story().session([0], chunks(0))
    story.tell("delete_session", id="s")
    story.tell("get_session", "failed", {"code": "NOT_FOUND", "reason": GONE}, session_id="s")
    assert story.found == []


def test_a_session_that_is_there_after_it_was_deleted_is_noticed() -> None:
    story = Story().session([0], chunks(0))
    story.tell("delete_session", id="s")
    answer = {"state": "CLOSED", "audio_id": "a", "job_id": "", "error": ""}
    story.tell("get_session", answer=answer, session_id="s")
    assert story.found == [("what_is_deleted_is_gone", "other")]


def test_a_session_that_is_gone_undeleted_is_lost() -> None:
    story = Story().session([0], chunks(0))
    story.tell("get_session", "failed", {"code": "NOT_FOUND", "reason": GONE}, session_id="s")
    assert story.found == [
        ("every_closed_session_becomes_an_audio", "lost"),
        ("errors_are_documented", "other"),
    ]


def test_a_session_that_is_not_found_once_though_nobody_deletes_it_is_noticed() -> None:
    story = Story().session([0], chunks(0))
    answer = {"code": "NOT_FOUND", "reason": GONE}
    story.tell("get_recording", "failed", answer, session_id="s")
    assert story.found == [("errors_are_documented", "other")]


@pytest.mark.parametrize(
    ("expires_after", "found"), [(0, []), (3600, [("errors_are_documented", "other")])]
)
def test_an_upload_is_refused_only_once_it_has_expired(
    expires_after: float, found: list[tuple[str, str]]
) -> None:
    story = Story()
    made = {"upload_id": "u", "expires_after": expires_after}
    story.tell("create_upload", answer=made, request_id="r")
    refusal = {"code": "FAILED_PRECONDITION", "reason": "UPLOAD_NOT_OPEN"}
    story.tell("complete_upload", "failed", refusal, upload_id="u")
    assert story.found == found


@pytest.mark.parametrize(("text", "found"), [(RIGHT, []), ("", [(RECOGNIZED, "lost")])])
def test_what_recognize_answers_is_looked_at(text: str, found: list[tuple[str, str]]) -> None:
    story = Story().tell("recognize", answer={"text": text}, options="p", **_sound(BLOCKS))
    assert story.found == found


def test_a_session_that_becomes_no_audio_is_lost() -> None:
    story = Story().session([0], chunks(0))
    answer = {"state": "CLOSED", "audio_id": "", "job_id": "", "error": ""}
    story.tell("get_session", answer=answer, session_id="s")
    assert story.found == [("every_closed_session_becomes_an_audio", "lost")]


def test_a_request_that_made_two_things_is_found() -> None:
    story = Story().job()
    story.final.effects = {"job r": ["j", "k"]}
    assert story.found == [(ONE_EFFECT, "doubled")]


def test_a_request_that_was_answered_with_two_things_is_found() -> None:
    story = Story().job().made("k")
    assert (ONE_EFFECT, "doubled") in story.found


def test_an_object_that_a_row_names_must_be_there() -> None:
    story = Story()
    story.final.named = {"slices/a/1/0"}
    assert story.found == [(OBJECTS, "lost")]


def test_an_object_must_be_named_by_a_row_or_wait_for_its_removal() -> None:
    story = Story()
    story.final.keys = {"slices/a/1/0"}
    assert story.found == [(OBJECTS, "other")]
    story.final.owned = {"slices/a/"}
    assert story.found == []


def test_an_audio_that_is_there_after_its_deletion_is_found() -> None:
    story = Story().tell("get_audio", id="a").tell("delete_audio", id="a")
    assert story.found == []
    assert story.tell("get_audio", id="a").found == [("what_is_deleted_is_gone", "other")]


def test_an_original_that_has_changed_is_lost() -> None:
    assert Story().tell("download", answer={"sha256": "x"}, id="a", sha256="x").found == []
    story = Story().tell("download", answer={"sha256": "y"}, id="a", sha256="x")
    assert story.found == [("what_is_downloaded_is_what_was_sent", "lost")]


def test_damaged_bytes_that_are_taken_are_noticed() -> None:
    refused = {"code": "FAILED_PRECONDITION", "reason": "CHECKSUM_MISMATCH"}
    assert Story().tell("complete_damaged", "failed", refused, upload_id="u").found == []
    story = Story().tell("complete_damaged", upload_id="u")
    assert story.found == [("what_is_damaged_is_not_taken", "other")]


def test_noise_that_becomes_ready_is_noticed() -> None:
    refused = {"code": "FAILED_PRECONDITION", "reason": "AUDIO_REJECTED"}
    story = Story().tell("upload_audio", answer={"audio_id": "a"}, request_id="r", noise=True)
    story.tell("get_audio", answer={"state": "REJECTED"}, id="a")
    assert story.tell("retry_audio", "failed", refused, id="a").found == []
    story.tell("get_audio", answer={"state": "READY"}, id="a")
    assert story.found == [("what_is_damaged_is_not_taken", "other")]


@pytest.mark.parametrize(("ids", "found"), [(["j"], []), ([], ["lost"]), (["j", "k"], ["doubled"])])
def test_a_list_has_what_was_made_and_nothing_else(ids: list[str], found: list[str]) -> None:
    story = Story().tell("list_jobs", answer={"ids": ids}, made=["j"])
    assert story.found == [("a_list_has_what_was_made", kind) for kind in found]


def test_a_stale_result_that_is_taken_is_found() -> None:
    story = Story().tell("stale_complete", task_id="t")
    assert story.found == [("a_stale_lease_changes_nothing", "doubled")]


def test_what_waits_in_the_end_is_lost() -> None:
    story = Story()
    story.final.unfinished = ["audio a"]
    assert story.found == [("nothing_waits_in_the_end", "lost")]


def test_an_internal_error_is_a_bug_and_so_is_a_refusal_that_nothing_foretells() -> None:
    internal = {"code": "INTERNAL", "reason": ""}
    refused = {"code": "FAILED_PRECONDITION", "reason": "PARTS_MISSING"}
    story = Story().tell("create_upload", "unknown", internal, request_id="r")
    story.tell("complete_upload", "failed", refused, upload_id="u")
    assert story.found == [("errors_are_documented", "other")] * 2


def test_overload_is_no_error() -> None:
    busy = {"code": "RESOURCE_EXHAUSTED", "reason": "TOO_MANY_JOBS"}
    assert Story().tell("create_jobs", "failed", busy).found == []
