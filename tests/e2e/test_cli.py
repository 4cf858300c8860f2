"""The terminal: what people type, and what programs read of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import wave
from pathlib import Path
from urllib.request import urlopen

import pytest

from platform_client import Client
from recordings import EXAMPLES, RATE, encoded, samples_of, text_of, wav
from running_platform import RunningPlatform
from scoring import words_of
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2
from terminal import Terminal
from waiting import eventually


@pytest.fixture(scope="session")
def terminal(platform: RunningPlatform) -> Terminal:
    return Terminal(platform)


async def test_a_file_becomes_text_on_stdout(terminal: Terminal) -> None:
    ran = await terminal.run("transcribe", EXAMPLES / "week.ogg")

    assert ran.status == 0, ran.err
    assert words_of(ran.out)
    assert "Traceback" not in ran.err


async def test_stdin_is_a_file_too(terminal: Terminal) -> None:
    from_file = await terminal.run("transcribe", EXAMPLES / "week.ogg")
    from_stdin = await terminal.run("transcribe", "-", stdin=(EXAMPLES / "week.ogg").read_bytes())

    assert (from_stdin.status, from_stdin.out) == (0, from_file.out)


async def test_many_files_are_written_beside_each_other(terminal: Terminal, tmp_path: Path) -> None:
    files = [EXAMPLES / name for name in ("week.ogg", "numbers.flac", "spelling.wav")]

    ran = await terminal.run("transcribe", *files, "--format", "srt", "--output", tmp_path)

    assert ran.status == 0, ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "numbers.srt", "spelling.srt", "week.srt",
    ]  # fmt: skip
    assert all("-->" in path.read_text() for path in tmp_path.iterdir())


async def test_the_json_transcript_has_words_with_times_and_what_made_it(
    terminal: Terminal,
) -> None:
    ran = await terminal.run(
        "transcribe", EXAMPLES / "numbers.flac", "--word-timestamps", "--format", "json"
    )

    transcript = ran.json
    assert transcript["language"] == "en"
    assert {"name", "revision", "compute_type"} <= set(transcript["model"])
    segment = transcript["segments"][0]
    assert {"id", "start", "end", "text", "avg_logprob", "no_speech_prob", "words"} <= set(segment)
    assert {"word", "start", "end", "probability"} <= set(segment["words"][0])
    assert segment["start"] <= segment["words"][0]["start"] <= segment["end"]


async def test_a_job_can_be_left_alone_and_looked_at_later(terminal: Terminal) -> None:
    label = f"test={os.getpid()}-alone"
    queued = await terminal.run("transcribe", EXAMPLES / "week.ogg", "--no-wait", "--label", label)
    assert queued.status == 0, queued.err
    (job,) = (await terminal.run("jobs", "list", "--label", label, "--json")).json["jobs"]

    watched = await terminal.run("jobs", "watch", job["job_id"], "--json")
    transcript = await terminal.run("transcript", job["job_id"])

    events = [json.loads(line) for line in watched.out.splitlines()]
    assert watched.status == 0
    assert events
    assert job["job_id"] in queued.out
    assert transcript.out == (await terminal.run("transcribe", EXAMPLES / "week.ogg")).out


async def test_ctrl_c_leaves_the_job_running_and_says_how_to_look_again(
    terminal: Terminal, client: Client, platform: RunningPlatform
) -> None:
    mine = {"test": f"{os.getpid()}-interrupted"}
    metrics = f"http://{platform.platform.address_of('job-metrics')}/metrics"

    async def watched() -> bool:
        page = await asyncio.to_thread(lambda: urlopen(metrics).read())
        return b"\nsteno_job_watchers 1.0\n" in page

    with platform.paused("transcription"):
        waiting = await terminal.start(
            "transcribe", EXAMPLES / "week.ogg", "--label", f"test={mine['test']}"
        )
        await eventually(watched)
        waiting.send_signal(signal.SIGINT)
        _, err = await waiting.communicate()

    (job,) = (await client.jobs.ListJobs(job_pb2.ListJobsRequest(labels=mine))).jobs
    assert waiting.returncode == 130
    assert f"steno jobs watch {job.job_id}" in err.decode()
    assert (await client.end_of(job.job_id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_a_job_can_be_cancelled_while_its_worker_does_nothing(
    terminal: Terminal, client: Client, platform: RunningPlatform
) -> None:
    with platform.paused("transcription"):
        queued = await terminal.run("transcribe", EXAMPLES / "week.ogg", "--no-wait")
        job_id = queued.out.split()[-1]
        cancelled = await terminal.run("jobs", "cancel", job_id)
        watched = await terminal.run("jobs", "watch", job_id)

    assert (queued.status, cancelled.status) == (0, 0)
    assert (await client.end_of(job_id)).state == job_pb2.JOB_STATE_CANCELLED
    assert watched.status != 0


async def test_status_says_that_all_is_ready(terminal: Terminal) -> None:
    async def all_is_ready() -> bool:
        return (await terminal.run("status")).status == 0

    await eventually(all_is_ready)


async def test_a_platform_that_is_not_there_is_said_in_one_line(terminal: Terminal) -> None:
    ran = await terminal.run("jobs", "list", STENO_ADDRESS="127.0.0.1:1")

    assert ran.status == 3
    assert "steno up" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("arguments", [["transcribe"], ["nonsense"], ["jobs", "get"]])
async def test_a_wrong_command_line_is_told_with_status_2(
    terminal: Terminal, arguments: list[str]
) -> None:
    ran = await terminal.run(*arguments)

    assert ran.status == 2
    assert "usage:" in ran.err


def video_without_sound() -> bytes:
    import io

    import av
    import numpy as np

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)

HOSTILE = {
    "empty.wav": b"",
    "one-byte.mp3": b"x",
    "header-only.wav": encoded(samples_of("week.ogg")[:0], "wav"),
    "text.mp3": b"This is no recording, it is a letter.\n" * 50,
    "image.png": PNG,
    "playlist.wav": b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:1/secret.wav\n",
    "concat.wav": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "silent-film.mp4": video_without_sound(),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_input_that_is_no_recording_is_refused_in_one_line_and_leaves_nothing(
    terminal: Terminal, platform: RunningPlatform, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    before = await platform.object_keys("uploads/")

    ran = await terminal.run("transcribe", path)

    assert ran.status == 4, ran
    assert ran.out == ""
    assert len([line for line in ran.err.splitlines() if name in line]) == 1, ran.err
    assert "Traceback" not in ran.err

    async def nothing_new() -> bool:
        return set(await platform.object_keys("uploads/")) <= set(before)

    await eventually(nothing_new)


async def test_the_next_file_works_after_one_was_refused(
    terminal: Terminal, tmp_path: Path
) -> None:
    refused = tmp_path / "text.mp3"
    refused.write_bytes(HOSTILE["text.mp3"])

    ran = await terminal.run("transcribe", refused, EXAMPLES / "week.ogg")

    assert ran.status == 4
    assert words_of(ran.out)


async def test_a_file_cut_in_the_middle_is_transcribed_as_far_as_it_goes_and_says_so(
    terminal: Terminal, tmp_path: Path
) -> None:
    whole = encoded(samples_of("numbers.flac"), "flac")
    path = tmp_path / "cut.flac"
    path.write_bytes(whole[: len(whole) * 6 // 10])

    ran = await terminal.run("transcribe", path, "--format", "json")

    assert ran.status == 0, ran.err
    assert ran.json["truncated"] is True
    assert 0 < len(words_of(str(ran.json["text"]))) < len(words_of(text_of("numbers.flac")))
    assert "middle" in ran.err


@pytest.mark.long
async def test_a_troublesome_producer_streams_a_recording_to_the_sample(
    terminal: Terminal, tmp_path: Path
) -> None:
    ran = await terminal.run(
        *("live", EXAMPLES / "spelling.wav", "--shuffle", "--duplicate", "0.1"),
        *("--realtime", "--disconnect-every", "2", "--chunk-ms", "50", "--json"),
    )
    told = [json.loads(line) for line in ran.out.splitlines()]
    session_id = told[0]["session_id"]
    got = await terminal.run(
        "sessions", "recording", session_id, "--output", tmp_path / "recording.wav"
    )
    listed = await terminal.run("sessions", "list", "--json")
    seen = await terminal.run("sessions", "get", session_id, "--json")
    watched = await terminal.run("sessions", "watch", session_id)
    job_id = str(seen.json["job_id"])
    await terminal.run("jobs", "watch", job_id)
    live = await terminal.run("sessions", "transcript", session_id, "--live", "--format", "srt")
    final = await terminal.run("sessions", "transcript", session_id)
    structured = await terminal.run("sessions", "transcript", session_id, "--json")
    of_job = await terminal.run("transcript", job_id)
    deleted = await terminal.run("sessions", "delete", session_id)
    gone = await terminal.run("sessions", "get", session_id)

    assert (ran.status, got.status) == (0, 0), ran.err + got.err
    with (
        wave.open(str(tmp_path / "recording.wav")) as recording,
        wave.open(str(EXAMPLES / "spelling.wav")) as source,
    ):
        assert recording.readframes(10**9) == source.readframes(10**9)
        assert recording.getparams() == source.getparams()
    results = [each["event"]["result_added"] for each in told if "result_added" in str(each)]
    heard = words_of(" ".join(result["segment"]["text"] for result in results))
    assert heard
    assert session_id in [each["session_id"] for each in listed.json["sessions"]]
    assert seen.json["state"] == "SESSION_STATE_CLOSED"
    assert words_of(re.sub(r"\[.*?\]", "", watched.out)) == heard
    assert words_of(re.sub(r"(?m)^(\d+|.* --> .*)$", "", live.out)) == heard
    assert final.out == of_job.out != ""
    assert structured.json["job_id"] == job_id
    assert (deleted.status, gone.status) == (0, 1)


async def test_a_session_is_gone_on_with_from_stdin_but_only_by_its_kind_of_sound(
    terminal: Terminal, client: Client, tmp_path: Path
) -> None:
    speech = samples_of("numbers.flac")
    half = len(speech) // 2
    config = concatenation_pb2.SessionConfig(
        encoding=concatenation_pb2.AUDIO_ENCODING_LINEAR16,
        sample_rate_hertz=RATE,
        live_results=False,
        final_job=False,
    )
    request = concatenation_pb2.CreateSessionRequest(config=config)
    session_id = (await client.sessions.CreateSession(request)).session.session_id
    chunk = concatenation_pb2.Chunk(content=speech[:half].tobytes())
    await client.sessions.AppendChunk(
        concatenation_pb2.AppendChunkRequest(session_id=session_id, chunk=chunk)
    )

    other = await terminal.run("live", EXAMPLES / "telephone.mp3", "--session", session_id)
    went_on = await terminal.run("live", "-", "--session", session_id, stdin=wav(speech[half:]))
    recording = tmp_path / "recording.wav"
    await terminal.run("sessions", "recording", session_id, "--output", recording)

    assert other.status == 2
    assert "the session takes LINEAR16 at 16000 Hz" in other.err
    assert went_on.status == 0, went_on.err
    with wave.open(str(recording)) as file:
        assert file.readframes(10**9) == speech.tobytes()


async def test_a_chunk_that_is_dropped_is_silence_and_close_ends_a_session(
    terminal: Terminal, client: Client, tmp_path: Path
) -> None:
    dropped = await terminal.run(
        "live", EXAMPLES / "spelling.wav", "--drop", "0.3", "--chunk-ms", "100", "--json"
    )
    session_id = json.loads(dropped.out.splitlines()[0])["session_id"]
    seen = await terminal.run("sessions", "get", session_id, "--json")
    recording = tmp_path / "recording.wav"
    await terminal.run("sessions", "recording", session_id, "--output", recording)
    request = concatenation_pb2.CreateSessionRequest(
        config=concatenation_pb2.SessionConfig(
            encoding=concatenation_pb2.AUDIO_ENCODING_CONTAINER, final_job=False
        )
    )
    other = (await client.sessions.CreateSession(request)).session.session_id
    closed = await terminal.run("sessions", "close", other, "--json")

    assert dropped.status == 0, dropped.err
    assert "gap_duration" in seen.json
    with (
        wave.open(str(recording)) as file,
        wave.open(str(EXAMPLES / "spelling.wav")) as source,
    ):
        # But for chunks that were dropped at the end: nobody knows of them.
        assert source.getnframes() - file.getnframes() < RATE
        assert file.readframes(10**9) != source.readframes(10**9)
    assert closed.json["sessions"][0]["state"] == "SESSION_STATE_CLOSED"


async def test_what_is_no_audio_is_refused_by_a_live_session(terminal: Terminal) -> None:
    ran = await terminal.run("live", EXAMPLES / "week.txt")

    assert ran.status == 4
    assert "text" in ran.err


async def test_a_model_that_is_not_offered_leaves_the_recording_and_says_why(
    platform: RunningPlatform,
) -> None:
    sessions = platform.client.sessions
    config = concatenation_pb2.SessionConfig(
        encoding=concatenation_pb2.AUDIO_ENCODING_LINEAR16,
        sample_rate_hertz=16_000,
        live_results=False,
        final_job_config=transcript_pb2.RecognitionConfig(model="nobody-has-this"),
    )
    request = concatenation_pb2.CreateSessionRequest(config=config, display_name="x" * 255)
    session_id = (await sessions.CreateSession(request)).session.session_id
    chunk = concatenation_pb2.Chunk(content=bytes(32_000))
    await sessions.AppendChunk(
        concatenation_pb2.AppendChunkRequest(session_id=session_id, chunk=chunk)
    )

    closing = concatenation_pb2.CloseSessionRequest(session_id=session_id)
    closed = (await sessions.CloseSession(closing)).session

    assert closed.audio_id
    assert not closed.job_id
    assert "model" in closed.job_error
