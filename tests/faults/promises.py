"""The checker: what the platform has promised, one function for each promise.

It knows nothing of the code: it holds what clients were told (`history`), and what is there in the
end (`Final`), against the contracts in proto/ and against the oracle. A FAILED, a REJECTED or a gap
that the oracle did not foretell is a loss, as if nothing had come at all.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from faults.history import History, Operation
from faults.oracle import (
    Run,
    begins_with,
    is_spoken,
    joined,
    runs_in,
    without,
    wrong_in,
)

Kind = Literal["lost", "doubled", "out of order", "other"]

ENDS = ("SUCCEEDED", "FAILED", "CANCELLED")
_RANK = {"QUEUED": 0, "RUNNING": 1} | dict.fromkeys(ENDS, 2)


@dataclass(frozen=True)
class Finding:
    """A promise that was not kept.

    Attributes:
        promise: its name.
        kind: how it counts in the table.
        sentence: what happened, with ids.
    """

    promise: str
    kind: Kind
    sentence: str


@dataclass
class Final:
    """What is there when nothing happens any more; what clients can ask for is in the history.

    Attributes:
        keys: all objects in S3.
        named: keys that rows name, and must be there.
        owned: prefixes that belong to a row, or wait for their removal.
        effects: for each request id or file name, the ids of what was made of it.
        unfinished: ids of jobs, sessions and audio that still wait for something.
    """

    keys: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    owned: set[str] = field(default_factory=set)
    effects: dict[str, list[str]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


@dataclass
class Job:
    """What clients know of a job."""

    job_id: str
    runs: list[Run]
    options: str
    cancelled: bool = False
    """Somebody was told that it is cancelled."""
    may_be_cancelled: bool = False
    may_be_deleted: bool = False


@dataclass
class Session:
    """What clients know of a session."""

    session_id: str
    file: int
    blocks: int
    runs: list[Run]
    options: str
    final_job: bool
    live: bool
    """Its results are told while it is recorded."""
    form: str
    """Of its chunks: "" for samples, "files" or "stream"."""
    chunk_blocks: int
    sent: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    closed: bool = False
    may_be_deleted: bool = False


class Record:
    """The history, by the things that it is about."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, Session] = {}
        self.noise = {
            operation.answer["audio_id"]
            for operation in history.of("upload_audio", told="ok")
            if operation.asked.get("noise")
        }
        """Audio that is no sound."""
        for operation in history.of("create_session", told="ok"):
            self._session(operation)
        for operation in history.of("create_jobs", "retry_job", told="ok"):
            self._jobs(operation)
        for operation in history.of("append_chunk", "stream_audio"):
            self._chunks(operation)
        for operation in history.of("close_session", told="ok"):
            self.sessions[operation.asked["session_id"]].closed = True
        for operation in history.of("get_session", told="ok"):
            session = self.sessions[operation.asked["session_id"]]
            if job_id := operation.answer["job_id"]:
                self.jobs.setdefault(job_id, Job(job_id, session.runs, session.options))
        for operation in history.of("cancel_job"):
            job = self.jobs[operation.asked["job_id"]]
            job.cancelled |= operation.told == "ok"
            job.may_be_cancelled |= operation.told != "failed"
        for operation in history.of("delete_job"):
            if operation.told != "failed" and operation.asked["id"] in self.jobs:
                self.jobs[operation.asked["id"]].may_be_deleted = True
        for operation in history.of("delete_session"):
            if operation.told != "failed":
                self.sessions[operation.asked["id"]].may_be_deleted = True

    def _session(self, operation: Operation) -> None:
        asked, session_id = operation.asked, operation.answer["session_id"]
        runs = without(asked["file"], asked["blocks"], asked["missing"])
        self.sessions[session_id] = Session(
            session_id,
            asked["file"],
            asked["blocks"],
            runs,
            asked["options"],
            asked["final_job"],
            asked["live"],
            asked["form"],
            asked["chunk_blocks"],
        )

    def _jobs(self, operation: Operation) -> None:
        asked = operation.asked
        runs = without(asked["file"], asked["blocks"], asked["missing"])
        if operation.what == "retry_job":
            options = [self.jobs[asked["job_id"]].options]
        else:
            options = [job["options"] for job in asked["jobs"]]
        for job_id, one in zip(operation.answer["job_ids"], options, strict=True):
            self.jobs.setdefault(job_id, Job(job_id, runs, one))

    def _chunks(self, operation: Operation) -> None:
        session = self.sessions[operation.asked["session_id"]]
        if operation.what == "append_chunk":
            session.sent.add(operation.asked["sequence"])
            if operation.told == "ok":
                session.acked.add(operation.asked["sequence"])
        else:
            session.sent.update(operation.asked["sequences"])
            session.acked.update(operation.answer["acked"])

    def about(self, *what: str) -> dict[str, list[Operation]]:
        """Answered operations, by the job or session that they ask for."""
        found = defaultdict(list)
        for operation in self.history.of(*what):
            key = operation.asked.get("job_id") or operation.asked.get("session_id")
            if key:
                found[key].append(operation)
        return found


Promise = Callable[[Record, Final], Iterator[tuple[Kind, str]]]


def every_accepted_job_ends_as_foretold(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """OK of CreateJob means that the job ends: SUCCEEDED, unless somebody cancelled it."""
    last = {
        job_id: operations[-1]
        for job_id, operations in record.about("get_job").items()
        if operations[-1].told != "unknown"
    }
    for job in record.jobs.values():
        seen = last.get(job.job_id)
        if seen is None:
            yield "lost", f"job {job.job_id}: nobody could read it in the end"
        elif seen.told == "failed":
            if not job.may_be_deleted:
                yield "lost", f"job {job.job_id} is gone ({seen.answer['code']}), undeleted"
        elif seen.answer["state"] == "SUCCEEDED":
            if job.cancelled:
                yield "other", f"job {job.job_id} has succeeded after it was cancelled"
        elif not (seen.answer["state"] == "CANCELLED" and job.may_be_cancelled):
            state, error = seen.answer["state"], seen.answer["error"]
            yield "lost", f"job {job.job_id} is {state} {error} in the end"


def a_job_has_one_result_the_computed_one(
    record: Record, final: Final
) -> Iterator[tuple[Kind, str]]:
    """A transcript is what the samples and options give, and never another after the first read."""
    reads = record.about("get_transcript")
    for job_id, operations in reads.items():
        told = [operation for operation in operations if operation.told == "ok"]
        if len({operation.answer["digest"] for operation in told}) > 1:
            yield "doubled", f"job {job_id} had two transcripts"
        job = record.jobs[job_id]
        for text in {operation.answer["text"] for operation in told}:
            if wrong := wrong_in(text, job.runs, job.options):
                yield _kind_of(runs_in(text), job.runs), f"transcript of job {job_id}: {wrong}"
    for job_id, operations in record.about("get_job").items():
        succeeded = operations[-1].answer.get("state") == "SUCCEEDED"
        unread = not any(operation.told == "ok" for operation in reads.get(job_id, ()))
        if succeeded and unread and not record.jobs[job_id].may_be_deleted:
            yield "lost", f"job {job_id} has succeeded, and nobody could read its transcript"


def _kind_of(found: Iterable[Run], expected: Sequence[Run]) -> Kind:
    heard = sum(run.count for run in found)
    wanted = sum(run.count for run in expected)
    return "lost" if heard < wanted else "doubled" if heard > wanted else "out of order"


def watchers_see_each_revision_once(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """No hole, no repeat, and the same event for each revision, on every replica."""
    for what in ("watch_job", "watch_session"):
        for key, operations in record.about(what).items():
            digests: dict[int, str] = {}
            for operation in operations:
                expected = operation.asked["after"]
                for event in operation.answer["events"]:
                    expected += 1
                    revision = event["revision"]
                    if revision != expected:
                        kind: Kind = "lost" if revision > expected else "doubled"
                        yield kind, f"{what} {key}: revision {revision} instead of {expected}"
                        break
                    if digests.setdefault(revision, event["digest"]) != event["digest"]:
                        yield "doubled", f"{what} {key}: two events of revision {revision}"


def watchers_are_told_the_transcript(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """What SUCCEEDED's watchers were told, from the first revision on, is the transcript."""
    for job_id, operations in record.about("watch_job").items():
        events = {e["revision"]: e for o in operations for e in o.answer["events"]}
        whole = sorted(events) == [*range(1, len(events) + 1)]
        last = events[len(events)] if events and whole else None
        if last and last["state"] == "SUCCEEDED":
            text = "".join(events[revision]["text"] for revision in sorted(events))
            job = record.jobs[job_id]
            if wrong := wrong_in(text, job.runs, job.options):
                yield _kind_of(runs_in(text), job.runs), f"watchers of job {job_id}: {wrong}"


def a_job_moves_one_way(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """Who asks later sees no earlier state, revision or progress; 1.0 comes with SUCCEEDED only."""
    for job_id, operations in record.about("get_job", "cancel_job").items():
        told = [operation for operation in operations if operation.told == "ok"]
        for operation in told:
            answer = operation.answer
            if (answer["fraction"] == 1) != (answer["state"] == "SUCCEEDED"):
                yield "other", f"job {job_id} is {answer['state']} at {answer['fraction']}"
        for earlier, later in _one_after_the_other(told):
            if _place(later.answer) < _place(earlier.answer):
                yield "other", f"job {job_id} went back from {earlier.answer} to {later.answer}"
    for job_id, operations in record.about("watch_job").items():
        for operation in operations:
            fractions = [
                event["fraction"]
                for event in operation.answer["events"]
                if event["fraction"] is not None
            ]
            if fractions != sorted(fractions):
                yield "other", f"watchers of job {job_id} saw progress go back: {fractions}"


def _one_after_the_other(
    operations: Sequence[Operation],
) -> Iterator[tuple[Operation, Operation]]:
    """Each operation, with the one farthest along of those that had ended when it began."""
    ended = deque(sorted(operations, key=lambda operation: operation.ended))
    farthest: Operation | None = None
    for later in sorted(operations, key=lambda operation: operation.begun):
        while ended and ended[0].ended < later.begun:
            earlier = ended.popleft()
            if farthest is None or _place(earlier.answer) > _place(farthest.answer):
                farthest = earlier
        if farthest:
            yield farthest, later


def _place(answer: dict[str, Any]) -> tuple[int, int, float]:
    return _RANK[answer["state"]], answer["revision"], answer["fraction"]


def nothing_comes_after_a_cancellation(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """OK of CancelJob means that no more segments are added."""
    for job_id, operations in record.about("watch_job").items():
        for operation in operations:
            ended = False
            for event in operation.answer["events"]:
                if ended:
                    yield "other", f"job {job_id} has events after its end"
                ended = ended or event["state"] in ENDS


def acknowledged_chunks_are_recorded_once_and_in_order(
    record: Record, final: Final
) -> Iterator[tuple[Kind, str]]:
    """A recording has each acknowledged chunk at its place, and silence for what was never sent."""
    reads = record.about("read_recording")
    for session in record.sessions.values():
        told = [o.answer["runs"] for o in reads.get(session.session_id, []) if o.told == "ok"]
        if not told:
            if session.acked and not session.may_be_deleted:
                yield "lost", f"session {session.session_id}: nobody could read its recording"
            continue
        if len({str(runs) for runs in told}) > 1:
            yield "doubled", f"session {session.session_id} had two recordings"
        check = _broken_up if session.form == "stream" else _misplaced
        for kind, sentence in check(session, [Run(*run) for run in told[-1]]):
            yield kind, f"session {session.session_id}: {sentence}"


def _misplaced(session: Session, runs: Sequence[Run]) -> Iterator[tuple[Kind, str]]:
    there: set[int] = set()
    seen: set[int] = set()
    at, size = 0, session.chunk_blocks
    for run in joined(runs):
        first, last = run.first // size, (run.end - 1) // size
        if run.file not in (0, session.file):
            yield "other", f"at block {at} there is something else ({run})"
        elif run.file:
            chunks = set(range(first, last + 1))
            if run.first % size or run.end % size:
                yield "lost", f"a chunk is not whole ({run})"
            if again := chunks & seen:
                yield "doubled", f"chunks {sorted(again)} are there twice"
            elif run.first != at:
                yield "out of order", f"chunks {first} to {last} are at block {at}"
            else:
                there |= chunks
            seen |= chunks
            if unsent := chunks - session.sent:
                yield "other", f"chunks {sorted(unsent)} were never sent"
        at += run.count
    if lost := session.acked - seen:
        yield "lost", f"acknowledged chunks {sorted(lost)} are not there"


def _broken_up(session: Session, runs: Sequence[Run]) -> Iterator[tuple[Kind, str]]:
    """One file that was cut anywhere: with all its chunks it sounds as it did."""
    whole = len(session.acked) == session.blocks // session.chunk_blocks
    if whole and joined(runs) != session.runs:
        yield _kind_of(runs, session.runs), f"it holds {joined(runs)} instead of {session.runs}"


def a_playlist_plays_the_recording(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """It is the recording's beginning, and all of it once it says that it has ended."""
    reads = record.about("read_recording")
    for session_id, operations in record.about("read_playlist").items():
        files = [o.answer["runs"] for o in reads.get(session_id, []) if o.told == "ok"]
        whole = [Run(*run) for run in files[-1]] if files else []
        for operation in operations:
            if not files or operation.told != "ok":
                continue
            played = [Run(*run) for run in operation.answer["runs"]]
            ended = operation.answer["ended"]
            if not begins_with(whole, played) or (ended and not begins_with(played, whole)):
                sentence = f"session {session_id} plays {played} of {whole}, ended: {ended}"
                yield _kind_of(played, whole), sentence


def live_results_tell_what_is_said_once(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """Who has watched a session to its end was told all speech of acknowledged chunks, in order."""
    for session_id, operations in record.about("watch_session").items():
        session = record.sessions[session_id]
        to_the_end = any(operation.told == "ok" for operation in operations)
        if session.live and to_the_end and not session.may_be_deleted:
            texts = {e["revision"]: e["text"] for o in operations for e in o.answer["events"]}
            heard = "".join(texts[revision] for revision in sorted(texts))
            for kind, sentence in _misheard(session, heard):
                yield kind, f"watchers of session {session_id}: {sentence}"


def _misheard(session: Session, text: str) -> Iterator[tuple[Kind, str]]:
    heard = runs_in(text)
    if wrong := wrong_in(text, heard, ""):
        yield "other", wrong
    told = [run for run in heard if run.file]
    if any(run.file != session.file for run in told):
        yield "other", f"something else was said: {told}"
    for one, other in pairwise(told):
        if other.first < one.end:
            yield "doubled", f"{other} was told after {one}"
    missed = _spoken_in(session)
    for run in told:
        missed[run.first : run.end] = False
    if missed.any():
        first = int(missed.argmax())
        yield "lost", f"{missed.sum()} blocks of speech were not told, the first is {first}"


def _spoken_in(session: Session) -> NDArray[np.bool_]:
    """Which blocks have speech that must be heard, of shape (blocks,)."""
    there, size = np.zeros(session.blocks, np.bool_), session.chunk_blocks
    if session.form != "stream" or len(session.acked) == session.blocks // size:
        for sequence in session.acked:
            there[sequence * size :][:size] = True
    return there & is_spoken(np.arange(session.blocks))


def no_chunk_is_refused(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """The same bytes may be sent again, and nothing is late before the session is closed."""
    for operation in record.history.of("stream_audio"):
        if operation.answer["refused"]:
            yield (
                "other",
                f"session {operation.asked['session_id']}: {operation.answer['refused']}",
            )


def every_closed_session_becomes_an_audio(
    record: Record, final: Final
) -> Iterator[tuple[Kind, str]]:
    """And a job is made of it, if one was wanted."""
    last = {key: found[-1] for key, found in record.about("get_session").items()}
    for session in record.sessions.values():
        seen = last.get(session.session_id)
        if session.may_be_deleted:
            continue
        if seen is None or seen.told != "ok":
            yield "lost", f"session {session.session_id}: nobody could read it in the end"
            continue
        answer = seen.answer
        if not session.acked:
            continue
        if answer["error"] or not answer["audio_id"]:
            yield "lost", f"session {session.session_id} has become no audio: {answer}"
        elif session.final_job and not answer["job_id"]:
            yield "lost", f"session {session.session_id} has got no job: {answer}"


def a_request_has_one_effect(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """However often a request id was sent, and whatever was told: once or not at all."""
    for request, made in final.effects.items():
        if len(made) > 1:
            yield "doubled", f"request {request} has made {made}"
    answers: dict[str, set[str]] = defaultdict(set)
    for operation in record.history.of(
        "create_upload", "upload_audio", "create_jobs", "retry_job", "create_session", told="ok"
    ):
        asked = operation.asked
        requests = (
            [job["request_id"] for job in asked["jobs"]]
            if operation.what == "create_jobs"
            else [asked["request_id"]]
        )
        made = next(iter(operation.answer.values()))
        for request, one in zip(requests, made if isinstance(made, list) else [made], strict=True):
            answers[request].add(one)
    for request, ids in answers.items():
        if len(ids) > 1:
            yield "doubled", f"request {request} was answered with {sorted(ids)}"


def rows_and_objects_match(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """No row names an object that is not there; no object is there that no row names."""
    for key in sorted(final.named - final.keys):
        yield "lost", f"a row names {key}, which is not there"
    for key in sorted(final.keys - final.named):
        if not any(key.startswith(prefix) for prefix in final.owned):
            yield "other", f"no row names {key}"


_READS = (
    *("get_job", "get_transcript", "watch_job", "get_audio"),
    *("get_session", "get_recording", "watch_session"),
)


def what_is_deleted_is_gone(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """OK of a deletion means NOT_FOUND from then on."""
    deletions = record.history.of("delete_job", "delete_audio", "delete_session", told="ok")
    gone = {deletion.asked["id"]: deletion.ended for deletion in deletions}
    for read in record.history.of(*_READS, told="ok"):
        resource = _resource(read)
        if read.begun > gone.get(resource, float("inf")):
            yield "other", f"{resource} was there after it was deleted ({read.what})"


def what_is_recognized_is_what_was_said(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """Recognize answers what the samples and options give."""
    for operation in record.history.of("recognize", told="ok"):
        asked = operation.asked
        runs = without(asked["file"], asked["blocks"], asked["missing"])
        if wrong := wrong_in(operation.answer["text"], runs, asked["options"]):
            yield _kind_of(runs_in(operation.answer["text"]), runs), f"Recognize: {wrong}"


def what_is_downloaded_is_what_was_sent(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """The original file is kept as it came."""
    for operation in record.history.of("download", told="ok"):
        if operation.answer["sha256"] != operation.asked["sha256"]:
            yield "lost", f"audio {operation.asked['id']} has other bytes than were sent"


def what_is_damaged_is_not_taken(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """Bytes that are not those that were announced become no audio, noise is REJECTED."""
    for operation in record.history.of("complete_damaged", told="ok"):
        yield "other", f"upload {operation.asked['upload_id']} was taken with other bytes"
    for operation in record.history.of("get_audio", told="ok"):
        audio_id = operation.asked["id"]
        if audio_id in record.noise and operation.answer["state"] == "READY":
            yield "other", f"audio {audio_id} is READY, and is no sound"


def a_list_has_what_was_made(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """Who lists what has a label of its own finds it, once."""
    for operation in record.history.of("list_jobs", "list_sessions", told="ok"):
        made, found = operation.asked["made"], operation.answer["ids"]
        if found != made:
            kind: Kind = "lost" if len(found) < len(made) else "doubled"
            yield kind, f"{operation.what} has {found} instead of {made}"


def a_stale_lease_changes_nothing(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """Who writes with an attempt that is not the last one is refused."""
    for operation in record.history.of("stale_complete", told="ok"):
        yield "doubled", f"task {operation.asked['task_id']} took a stale result"


def nothing_waits_in_the_end(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """When nobody asks for more, no limit is charged with anything."""
    for what in final.unfinished:
        yield "lost", f"{what} waits still"


DOCUMENTED: defaultdict[str, set[str]] = defaultdict(set) | {
    "cancel_job": {"JOB_ENDED"},
    "retry_job": {"JOB_NOT_RETRYABLE"},
    "delete_job": {"JOB_NOT_FOUND"},
    "delete_audio": {"AUDIO_NOT_FOUND"},
    "delete_session": {"SESSION_NOT_FOUND"},
    "get_job": {"JOB_NOT_FOUND"},
    "get_audio": {"AUDIO_NOT_FOUND"},
    "get_session": {"SESSION_NOT_FOUND"},
    "get_recording": {"SESSION_NOT_FOUND"},
    "watch_session": {"SESSION_NOT_FOUND"},
    "close_session": {"SESSION_NOT_FOUND"},
    "get_transcript": {"JOB_NOT_FOUND"},
    "watch_job": {"JOB_NOT_FOUND"},
    "stale_complete": {"STALE_LEASE"},
    "complete_damaged": {"CHECKSUM_MISMATCH", "PARTS_MISSING"},
}
"""Refusals that this load may get; any other is none that its inputs foretell."""


def errors_are_documented(record: Record, final: Final) -> Iterator[tuple[Kind, str]]:
    """INTERNAL is always a bug, and so is a refusal that neither contract nor oracle foretells."""
    deleted: dict[str, float] = {}
    for deletion in record.history.of("delete_job", "delete_audio", "delete_session"):
        resource = deletion.asked["id"]
        deleted[resource] = min(deletion.begun, deleted.get(resource, deletion.begun))
    open_until = {
        creation.answer["upload_id"]: creation.begun + creation.answer["expires_after"]
        for creation in record.history.of("create_upload", told="ok")
    }
    for operation in record.history.operations:
        code, reason = operation.answer.get("code", "OK"), operation.answer.get("reason", "")
        if code == "RESOURCE_EXHAUSTED":
            continue
        foretold = reason in DOCUMENTED[operation.what]
        if reason == "UPLOAD_NOT_OPEN":
            upload_id = operation.asked["upload_id"]
            foretold = open_until.get(upload_id, float("inf")) < operation.ended
        if operation.what == "retry_audio" and operation.asked["id"] in record.noise:
            foretold = reason == "AUDIO_REJECTED"
        if code == "NOT_FOUND":
            foretold &= deleted.get(_resource(operation), float("inf")) < operation.ended
        if code in ("INTERNAL", "UNKNOWN") or (operation.told == "failed" and not foretold):
            yield "other", f"{operation.what} {_ids(operation)}: {code} {reason}"


def _resource(operation: Operation) -> str:
    """What an operation asks for."""
    asked = operation.asked
    return str(asked.get("job_id") or asked.get("session_id") or asked.get("id", ""))


def _ids(operation: Operation) -> str:
    return " ".join(str(v) for k, v in operation.asked.items() if k.endswith("id"))


PROMISES: tuple[Promise, ...] = (
    every_accepted_job_ends_as_foretold,
    a_job_has_one_result_the_computed_one,
    watchers_see_each_revision_once,
    watchers_are_told_the_transcript,
    a_job_moves_one_way,
    nothing_comes_after_a_cancellation,
    acknowledged_chunks_are_recorded_once_and_in_order,
    a_playlist_plays_the_recording,
    live_results_tell_what_is_said_once,
    no_chunk_is_refused,
    every_closed_session_becomes_an_audio,
    a_request_has_one_effect,
    rows_and_objects_match,
    what_is_deleted_is_gone,
    what_is_recognized_is_what_was_said,
    what_is_downloaded_is_what_was_sent,
    what_is_damaged_is_not_taken,
    a_list_has_what_was_made,
    a_stale_lease_changes_nothing,
    nothing_waits_in_the_end,
    errors_are_documented,
)


def findings(history: History, final: Final) -> list[Finding]:
    """All promises that were not kept."""
    record = Record(history)
    return [
        Finding(promise.__name__, kind, sentence)
        for promise in PROMISES
        for kind, sentence in promise(record, final)
    ]


def lines(found: Iterable[Finding]) -> str:
    """For people."""
    return "\n".join(f"{f.kind:<12} {f.promise}: {f.sentence}" for f in found)
