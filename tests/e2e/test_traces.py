"""Traces: what a client asks for is one trace, over gRPC, NATS and the database."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import trace

from live_sessions import cut
from platform_client import Client
from recordings import RATE, samples_of, wav
from running_platform import RunningPlatform
from spans import Receiver, Span
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import upload_pb2
from waiting import eventually

STENO = str(Path(sys.executable).with_name("steno"))
TASK = "steno.tasks.builtin.normal"


def named(spans: list[Span], process: str, name: str) -> list[Span]:
    return [span for span in spans if (span.process, span.name) == (process, name)]


async def test_a_command_is_one_trace_from_its_upload_to_its_last_slice(
    platform: RunningPlatform, receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "long.wav"
    file.write_bytes(wav(samples_of("ten-minutes.opus")[: 100 * RATE]))

    environment = {"STENO_HOME": str(platform.platform.folder), **receiver.environment}
    command = await asyncio.create_subprocess_exec(
        *(STENO, "transcribe", str(file), "--json"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await command.communicate()
    (job,) = json.loads(out)["jobs"]
    request = upload_pb2.GetAudioRequest(audio_id=job["audio_id"])
    audio = (await platform.client.uploads.GetAudio(request)).audio

    async def whole() -> list[Span]:
        (root,) = named(receiver.spans, "steno", "steno transcribe")
        spans = receiver.of(root.trace_id)
        known = {span.span_id for span in spans}
        assert [span for span in spans if span.parent_id not in known] == [root]
        assert named(spans, "upload", "steno.v1.UploadService/CreateUpload")
        assert named(spans, "upload", "steno.v1.UploadService/CompleteUpload")
        assert len(named(spans, "prepare", "steno.prepare")) == 1
        assert len(named(spans, "job", "steno.v1.JobService/CreateJob")) == 1
        assert len(named(spans, "transcription", TASK)) == audio.slice_count > 1
        assert {s.attributes["job_id"] for s in named(spans, "transcription", TASK)} == {
            job["job_id"]
        }
        return spans

    spans = await eventually(whole)

    for process in ("prepare", "job", "transcription"):
        assert spans[0].trace_id in traces_in_log(platform, process)


async def test_a_client_s_own_trace_holds_a_session_and_its_final_job(
    client: Client, receiver: Receiver
) -> None:
    with own_trace() as trace_id:
        request = pb.CreateSessionRequest(
            config=pb.SessionConfig(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE)
        )
        session_id = (await client.sessions.CreateSession(request)).session.session_id
    speech = samples_of("week.ogg").tobytes()
    for sequence, content in enumerate(cut(speech, RATE)):
        chunk = pb.Chunk(sequence=sequence, content=content)
        await client.sessions.AppendChunk(pb.AppendChunkRequest(session_id=session_id, chunk=chunk))
    closing = pb.CloseSessionRequest(session_id=session_id)
    session = (await client.sessions.CloseSession(closing)).session
    await client.end_of(session.job_id)

    def whole() -> bool:
        spans = receiver.of(trace_id)
        assert named(spans, "concatenation", "steno.v1.ConcatenationService/CreateSession")
        assert named(spans, "upload", "steno.v1.ImportService/ImportAudio")
        assert named(spans, "prepare", "steno.prepare")
        assert named(spans, "job", "steno.v1.JobService/CreateJob")
        assert named(spans, "transcription", TASK)
        return True

    await eventually(whole)


@contextmanager
def own_trace() -> Iterator[str]:
    """What is called inside belongs to a trace of the client; gives its id."""
    trace_id, span_id = secrets.randbits(128) | 1, secrets.randbits(64) | 1
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    context = trace.SpanContext(trace_id, span_id, is_remote=False, trace_flags=sampled)
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield trace.format_trace_id(trace_id)


def traces_in_log(platform: RunningPlatform, process: str) -> set[str]:
    """The traces that a process has logged something in."""
    lines = (platform.platform.logs / f"{process}.log").read_text().splitlines()
    return {json.loads(line).get("trace_id") for line in lines if line.startswith("{")}
