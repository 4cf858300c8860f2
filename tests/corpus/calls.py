"""What strangers say in calls, each with the error that it must get."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from grpc import StatusCode

from calling import TEN_YEARS, Call, Fields, Thing
from contract import NOBODY, documented, fill, methods, name_of, request_type, wrong_requests
from corpus.waves import SECOND, data, format_chunk, wave

MINUTE_AND_A_HALF = wave(format_chunk(), data(bytes(90 * len(SECOND))))


@dataclass(frozen=True)
class BadCall:
    """A call that must not succeed, or must all the same.

    Attributes:
        name: one sentence that says what is wrong with it.
        call: what is sent.
        code: how it must end.
        reason: of ErrorInfo; empty where gRPC itself ends the call.
        field: that must be named as wrong; empty if it is no matter of a field.
    """

    name: str
    call: Call
    code: StatusCode = StatusCode.INVALID_ARGUMENT
    reason: str = "INVALID_FIELDS"
    field: str = ""


def broken_rules() -> Iterator[BadCall]:
    """Each field of each RPC: missing, too long, too small, enormous, of an unknown value, ..."""
    for method in methods():
        for path, what, request in wrong_requests(request_type(method)):
            call = Call(name_of(method), (request.SerializeToString(),))
            yield BadCall(f"{name_of(method)}: {path} {what}", call, field=path)


def malformed() -> Iterator[BadCall]:
    """Bytes that are no message."""
    for method in methods():
        call = Call(name_of(method), (b"\xff\xff\xff",))
        yield BadCall(f"{name_of(method)}: bytes are no message", call, reason="MALFORMED_MESSAGE")


def strangers_ids() -> Iterator[BadCall]:
    """Ids that nothing has."""
    for method in methods():
        (reason,) = documented()[method.full_name].get(StatusCode.NOT_FOUND, {""})
        if not reason.endswith("_NOT_FOUND") or reason == "OBJECT_NOT_FOUND":
            continue
        request = request_type(method)()
        fill(request)
        if name_of(method) == "ConcatenationService.StreamAudio":
            request = request_type(method)(start={"session_id": NOBODY})
        call = Call(name_of(method), (request.SerializeToString(),))
        yield BadCall(
            f"{name_of(method)}: an id that nobody has", call, StatusCode.NOT_FOUND, reason
        )
    for name in ("RenewTask", "CompleteTask", "FailTask"):
        fields = {"task_id": NOBODY, "attempt": 1}
        more: dict[str, Fields] = {
            "CompleteTask": {"transcript": {}},
            "FailTask": {"failure": 1},
        }
        yield BadCall(
            f"TaskService.{name}: a task that nobody has",
            Call(f"TaskService.{name}", ({**fields, **more.get(name, {})},)),
            StatusCode.ABORTED,
            "STALE_LEASE",
        )


def _token(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


_TIME = "2020-01-01T00:00:00+00:00"

FORGED_TOKENS = {
    "is a word": "forged",
    "is not in Base64": "====",
    "has too few characters": "a",
    "is no JSON": base64.urlsafe_b64encode(b"{").decode(),
    "is brackets in brackets": base64.urlsafe_b64encode(b"[" * 700).decode(),
    "has two parts": _token(_TIME, NOBODY),
    "has four parts": _token(_TIME, NOBODY, None, None),
    "has lists for parts": _token([], [], []),
    "has numbers for parts": _token(1, 2, 3),
    "has no time": _token("0" * 16, "yesterday", NOBODY),
    "has no id": _token("0" * 16, _TIME, "x"),
    "is of another filter": _token("0" * 16, _TIME, NOBODY),
    "is of a state that there is not": _token(_TIME, NOBODY, "FORGED"),
}
"""What is wrong with a page token, and such a one."""


LISTS = ("UploadService.ListAudio", "JobService.ListJobs", "ConcatenationService.ListSessions")


def page_tokens() -> Iterator[BadCall]:
    """Page tokens that the server never made."""
    for name in LISTS:
        for what, token in FORGED_TOKENS.items():
            call = Call(name, ({"page_token": token},))
            yield BadCall(f"{name}: the page token {what}", call, field="page_token")


HEADER: Fields = {"header": {"filename": "recording.wav"}}
START: Fields = {"start": {"session_id": Thing("session", 0)}}
CHUNK: Fields = {"chunk": {"content": b"\0\0"}}


def streams() -> Iterator[BadCall]:
    """Streams whose messages do not come as they must."""
    upload, stream = "UploadService.UploadAudio", "ConcatenationService.StreamAudio"
    wrong: list[tuple[str, str, tuple[Fields, ...], str]] = [
        ("a stream of a file without a message", upload, (), "header"),
        ("a stream of a file that begins with bytes", upload, ({"chunk": b"x"}, HEADER), "header"),
        ("a stream of a file that begins with nothing", upload, ({}, HEADER), "header"),
        ("a stream of a file with two headers", upload, (HEADER, HEADER), "chunk"),
        ("a stream of a file with nothing in a message", upload, (HEADER, {}), "chunk"),
        ("a stream of chunks without a message", stream, (), "start"),
        ("a stream of chunks that begins with one", stream, (CHUNK, START), "start"),
        ("a stream of chunks that begins with nothing", stream, ({}, START), "start"),
        ("a stream of chunks with two starts", stream, (START, START), "chunk"),
        ("a stream of chunks with nothing in a message", stream, (START, {}), "chunk"),
    ]
    for name, method, messages, field in wrong:
        yield BadCall(name, Call(method, messages), field=field)


def tenants() -> Iterator[BadCall]:
    """Tenants whose names are none."""
    for what, name in {
        "has no letters": "",
        "is in capitals": "TENANT",
        "has 64 letters": "x" * 64,
        "leads upwards": "../other",
        "begins with a dash": "-tenant",
    }.items():
        yield BadCall(
            f"a tenant whose name {what}",
            Call("JobService.ListJobs", metadata=(("x-steno-tenant", name),)),
            field="x-steno-tenant",
        )


def _session(**config: Any) -> Call:
    plain = {"encoding": 1, "sample_rate_hertz": 16_000}
    return Call("ConcatenationService.CreateSession", ({"config": plain | config},))


def _job(**fields: Any) -> Call:
    return Call("JobService.CreateJob", ({"audio_id": Thing("audio", 0), **fields},))


def _chunk(session: int = 0, **fields: Any) -> Call:
    ids = {"session_id": Thing("session", session)}
    return Call("ConcatenationService.AppendChunk", ({**ids, "chunk": fields},))


def _recognize(content: bytes, **config: Any) -> Call:
    return Call("TranscriptionService.Recognize", ({"content": content, "config": config},))


def _gaps(*gaps: tuple[int, int]) -> Call:
    spans = [{"start_sample": start, "end_sample": end} for start, end in gaps]
    fields = {"object_key": "recordings/a", "filename": "a.wav", "request_id": NOBODY}
    return Call("ImportService.ImportAudio", ({**fields, "gaps": spans},))


LARGE = 10 * 2**20 + 1
LAST_YEAR = {"seconds": 1_700_000_000}
FAR = {"seconds": 253_402_300_799}

ARGUMENTS = (
    BadCall(
        "an upload of 8 EiB",
        Call("UploadService.CreateUpload", ({"filename": "a.wav", "size_bytes": 2**63 - 1},)),
        field="size_bytes",
    ),
    BadCall(
        "an upload to be completed of which nothing came",
        Call("UploadService.CompleteUpload", ({"upload_id": Thing("upload", 0)},)),
        StatusCode.FAILED_PRECONDITION,
        "PARTS_MISSING",
    ),
    BadCall(
        "an upload to be completed that was aborted",
        Call("UploadService.CompleteUpload", ({"upload_id": Thing("upload", 2)},)),
        StatusCode.FAILED_PRECONDITION,
        "UPLOAD_NOT_OPEN",
    ),
    BadCall(
        "a file whose digest is another",
        Call(
            "UploadService.UploadAudio",
            ({"header": {"filename": "a", "sha256": "0" * 64}}, {"chunk": b"x"}),
        ),
        StatusCode.FAILED_PRECONDITION,
        "CHECKSUM_MISMATCH",
    ),
    BadCall(
        "a message of more than a MiB in the stream of a file",
        Call("UploadService.UploadAudio", (HEADER, {"chunk": bytes(2**20 + 1)})),
        field="chunk",
    ),
    BadCall(
        "a request without audio of more than a MiB",
        Call("UploadService.CreateUpload", ({"filename": "x" * 2**20},)),
        reason="MESSAGE_TOO_LARGE",
    ),
    BadCall(
        "a request of more than gRPC takes",
        Call("TranscriptionService.Recognize", ({"content": bytes(12 * 2**20)},)),
        StatusCode.RESOURCE_EXHAUSTED,
        "",
    ),
    BadCall("a recording that ends before it begins", _gaps((5, 4)), field="gaps[0].end_sample"),
    BadCall(
        "a recording with a gap to the end of time, and no object",
        _gaps((0, 2**63 - 1)),
        StatusCode.NOT_FOUND,
        "OBJECT_NOT_FOUND",
    ),
    BadCall(
        "a job of a model that is not served",
        _job(config={"model": "no-such"}),
        field="config.model",
    ),
    BadCall("a job whose deadline has passed", _job(deadline=LAST_YEAR), field="deadline"),
    BadCall("a job of the year 9999", _job(not_before=FAR), field="not_before"),
    BadCall(
        "a job of audio that was rejected",
        Call("JobService.CreateJob", ({"audio_id": Thing("audio", 1)},)),
        StatusCode.FAILED_PRECONDITION,
        "AUDIO_REJECTED",
    ),
    BadCall(
        "two jobs of one request",
        Call(
            "JobService.BatchCreateJobs",
            ({"requests": [{"audio_id": NOBODY, "request_id": NOBODY}] * 2},),
        ),
        field="requests[0].request_id",
    ),
    BadCall(
        "a watcher that has seen more than there is",
        Call("JobService.WatchJob", ({"job_id": Thing("job", 1), "after_revision": 2**63 - 1},)),
        field="after_revision",
    ),
    BadCall(
        "the id of a session for one of a job",
        Call("JobService.GetJob", ({"job_id": Thing("session", 0)},)),
        StatusCode.NOT_FOUND,
        "JOB_NOT_FOUND",
    ),
    BadCall(
        "the transcript of a job that runs",
        Call("JobService.GetTranscript", ({"job_id": Thing("job", 1)},)),
        StatusCode.FAILED_PRECONDITION,
        "JOB_NOT_ENDED",
    ),
    BadCall(
        "a lease that comes after two billion attempts",
        Call("TaskService.RenewTask", ({"task_id": Thing("task", 1), "attempt": 2**31 - 1},)),
        StatusCode.ABORTED,
        "STALE_LEASE",
    ),
    BadCall(
        "a task that another worker has",
        Call("TaskService.LeaseTask", ({"task_id": Thing("task", 1), "worker_id": "thief"},)),
        StatusCode.ABORTED,
        "TASK_LEASED",
    ),
    BadCall(
        "a session of one sample a second",
        _session(sample_rate_hertz=1),
        field="config.sample_rate_hertz",
    ),
    BadCall(
        "a session of a container with a rate",
        _session(encoding=5),
        field="config.sample_rate_hertz",
    ),
    BadCall("a session of RF64", _session(recording_format=3), field="config.recording_format"),
    BadCall("a session without an end", _session(max_duration=FAR), field="config.max_duration"),
    BadCall(
        "a session that waits for -1 s",
        _session(gap_timeout={"seconds": -1}),
        field="config.gap_timeout",
    ),
    BadCall(
        "a session that is idle for 0 s", _session(idle_timeout={}), field="config.idle_timeout"
    ),
    BadCall("a chunk of half a sample", _chunk(content=b"x"), field="chunk.content"),
    BadCall("a chunk of more than 10 MiB", _chunk(content=bytes(LARGE)), field="chunk.content"),
    BadCall(
        "a chunk whose digest is another",
        _chunk(content=b"\0\0", sha256="0" * 64),
        field="chunk.sha256",
    ),
    BadCall(
        "a chunk at the end of time",
        _chunk(content=b"\0\0", sequence=2**63 - 1),
        StatusCode.OUT_OF_RANGE,
        "TOO_FAR_AHEAD",
    ),
    BadCall(
        "a chunk that came before with other bytes",
        _chunk(content=b"\1\1", sequence=0),
        StatusCode.ALREADY_EXISTS,
        "SEQUENCE_REUSED",
    ),
    BadCall(
        "a chunk of a session that has ended",
        _chunk(2, content=b"\0\0"),
        StatusCode.FAILED_PRECONDITION,
        "SESSION_NOT_OPEN",
    ),
    BadCall(
        "a recording of which nothing came",
        Call("ConcatenationService.GetRecording", ({"session_id": Thing("session", 1)},)),
        StatusCode.FAILED_PRECONDITION,
        "NOTHING_RECORDED",
    ),
    BadCall("a text to be recognised", _recognize(b"words"), reason="AUDIO_REJECTED"),
    BadCall(
        "a minute and a half to be recognised",
        _recognize(MINUTE_AND_A_HALF),
        reason="AUDIO_TOO_LONG",
    ),
    BadCall(
        "a language that the model does not know",
        _recognize(b"RIFF", language_code="zz"),
        field="config.language_code",
    ),
    BadCall(
        "more words than the model reads",
        _recognize(b"RIFF", hotwords=["\u4e00" * 100] * 9),
        field="config.hotwords",
    ),
    BadCall(
        "a model that is not served",
        _recognize(b"RIFF", model="no-such"),
        StatusCode.NOT_FOUND,
        "MODEL_NOT_SERVED",
    ),
    BadCall(
        "a window of half a sample",
        Call("WindowService.RecognizeWindow", ({"samples": b"x"},)),
        field="samples",
    ),
)

LISTED = Call("JobService.ListJobs")

DEADLINES = (
    BadCall(
        "a call whose time is over before it begins",
        replace(LISTED, deadline=-1.0),
        StatusCode.DEADLINE_EXCEEDED,
        "",
    ),
    BadCall("a call that has ten years", replace(LISTED, deadline=TEN_YEARS), StatusCode.OK, ""),
)

CALLS: tuple[BadCall, ...] = (
    *broken_rules(),
    *malformed(),
    *strangers_ids(),
    *page_tokens(),
    *streams(),
    *tenants(),
    *ARGUMENTS,
    *DEADLINES,
)
