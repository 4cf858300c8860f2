"""Rows 9 to 14: live sessions."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench.results import Result, result
from bench.side_by_side import Measured, cpu_seconds, platform, speech, spoken, write_wav
from bench.utterances import CHUNK_SECONDS, INTERIM_SECONDS, Heard
from steno.concatenation.recording import PART_BYTES
from steno.platform.objects import ObjectStore, open_store
from steno.platform.wellknown import seconds_of
from steno.transcript import SAMPLE_RATE
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import upload_pb2
from waiting import eventually

CHUNKS = 3000
CHUNK_BYTES = int(CHUNK_SECONDS * SAMPLE_RATE) * 2
EARLY = 30
APPENDS = 100
"""Appends whose median counts."""
LISTENED_SECONDS = 90
SESSION_SECONDS = 40
LATE_SECONDS = 3.0
"""Whose results come later does not keep up."""
MOST_SESSIONS = 32
PIECE_SECONDS = 120
LONG_SECONDS = 3 * 3600
CLOSED_HOURS = 10
WAV_HEADER_BYTES = 44
WRITES = ("put", "upload_part")


async def bytes_written(folder: Path, rounds: int) -> list[Result]:
    """What a session of 3,000 chunks writes to S3, its final file included."""
    ratios, detail = [], ""
    pcm = np.resize(speech(), CHUNKS * CHUNK_BYTES // 2).tobytes()
    async with platform(1, sleeping=True) as measured:
        for _ in range(rounds):
            before = await s3_bytes(measured)
            session_id = await opened(measured, live_results=False, final_job=False)
            await send(measured, session_id, pcm)
            closed = await close(measured, session_id)
            file = await recording(measured, session_id)
            assert file.endswith(pcm)
            assert closed.duration.ToMilliseconds() == len(pcm) // 2 * 1000 // SAMPLE_RATE
            after = await s3_bytes(measured)
            moved = {name: after[name] - before.get(name, 0) for name in after}
            ratios.append(sum(moved.get(name, 0) for name in WRITES) / len(pcm))
            copied = moved.get("copy_part", 0) / len(pcm)
            naive = sum(range(CHUNKS + 1)) / CHUNKS
            detail = (
                f"and {copied:.2f} copied inside the store; a file written anew for each chunk: "
                f"{naive:.0f}"
            )
    name = f"S3 bytes written over audio bytes, {CHUNKS} chunks and one file"
    return [result(9, name, ratios, 2.1, detail, at_most=True)]


async def appending(folder: Path, rounds: int) -> list[Result]:
    """AppendChunk early and late, in turns; and a file that is written anew for each chunk."""
    ratios, naive_ratios, detail = [], [], ""
    content = spoken(CHUNK_SECONDS, 3).tobytes()
    async with platform(1, sleeping=True) as measured, open_store(measured.s3) as objects:
        for _ in range(rounds):
            times: dict[int, list[float]] = {EARLY: [], CHUNKS: []}
            naive: dict[int, list[float]] = {EARLY: [], CHUNKS: []}
            sessions = {}
            for count in times:
                sessions[count] = await opened(measured, live_results=False, final_job=False)
                await send(measured, sessions[count], content * count)
            for more in range(APPENDS):
                for count, taken in times.items():
                    taken.append(await _append(measured, sessions[count], count + more, content))
            for session_id in sessions.values():
                await close(measured, session_id)
            for more in range(APPENDS // 10):
                for count, taken in naive.items():
                    whole = content * (count + more)
                    taken.append(await _write_anew(objects, f"naive/{count}", whole, content))
            early, late = (statistics.median(times[count]) for count in (EARLY, CHUNKS))
            ratios.append(late / early)
            early_naive, late_naive = (statistics.median(naive[n]) for n in (EARLY, CHUNKS))
            naive_ratios.append(late_naive / early_naive)
            detail = (
                f"{late * 1e3:.1f} and {early * 1e3:.1f} ms; a file written anew for each chunk: "
                f"{late_naive * 1e3:.0f} and {early_naive * 1e3:.1f} ms, "
                f"{statistics.median(naive_ratios):.1f} times"
            )
    return [result(10, f"time of append {CHUNKS} over {EARLY}", ratios, 1.1, detail, at_most=True)]


async def _append(measured: Measured, session_id: str, sequence: int, content: bytes) -> float:
    began = time.perf_counter()
    chunk = pb.Chunk(sequence=sequence, content=content)
    await measured.client.sessions.AppendChunk(
        pb.AppendChunkRequest(session_id=session_id, chunk=chunk)
    )
    return time.perf_counter() - began


async def _write_anew(objects: ObjectStore, key: str, before: bytes, content: bytes) -> float:
    """Reads a file, adds a chunk, writes the file; returns the seconds that it took."""
    await objects.put(key, before)
    began = time.perf_counter()
    await objects.put(key, await objects.get(key) + content)
    return time.perf_counter() - began


async def listening(folder: Path, rounds: int) -> list[Result]:
    """One session in real time, over the same policy in one process; and what comes meanwhile."""
    samples = with_silence(spoken(LISTENED_SECONDS))
    path = write_wav(folder / "listened.wav", samples)
    middle, high, acks, shown = [], [], [], []
    detail = detail_high = acked = detail_shown = ""
    async with platform(1) as measured:
        for _ in range(rounds):
            [(steno, waits)] = await heard(measured, [samples])
            [alone] = await heard_alone([path])
            # Both hear the same utterances, and the same words in them.
            assert steno.text == alone.text, (steno.text, alone.text)
            assert len(steno.latencies) == len(alone.latencies) >= 5
            ours, others = quantiles(steno.latencies), quantiles(alone.latencies)
            middle.append(ours[0] / others[0])
            high.append(ours[1] / others[1])
            acks.append(quantiles(waits)[1] * 1e3)
            detail = f"{ours[0]:.2f} and {others[0]:.2f} s"
            detail_high = f"{ours[1]:.2f} and {others[1]:.2f} s, {len(steno.latencies)} utterances"
            acked = f"p50 {quantiles(waits)[0] * 1e3:.0f} ms, longest {max(waits) * 1e3:.0f} ms"
            shown.append(quantiles(steno.intervals)[0])
            detail_shown = (
                f"p95 {quantiles(steno.intervals)[1]:.2f} s; one process: p50 and p95 "
                f"{' and '.join(f'{each:.2f}' for each in quantiles(alone.intervals))} s"
            )
    name = "end of speech to final result over one process"
    return [
        result(11, f"{name}, p50", middle, 1.3, detail, at_most=True),
        result(11, f"{name}, p95", high, 1.3, detail_high, at_most=True),
        result(11, "chunk to its acknowledgement, p95 in ms", acks, 500, acked, at_most=True),
        result(
            11,
            "seconds between interim results while somebody speaks, p50",
            shown,
            INTERIM_SECONDS,
            detail_shown,
            at_most=True,
        ),
    ]


async def sessions(folder: Path, rounds: int) -> list[Result]:
    """How many sessions keep up with those who speak in them."""
    counts, detail = [], ""
    async with platform(1) as measured:
        for _ in range(rounds):
            counts.append(float(await _most(folder, measured)))
            alone = await _most(folder, None)
            detail = f"the same policy in one process: {alone}"
    name = f"sessions in real time, finals within {LATE_SECONDS:g} s (p95)"
    return [result(12, name, counts, 4, detail)]


async def lasting(folder: Path, rounds: int) -> list[Result]:
    """What the concatenation service computes for a session at its begin, and after hours; once."""
    piece = np.concatenate([spoken(PIECE_SECONDS - 12), np.zeros(12 * SAMPLE_RATE, np.int16)])
    pcm, count = piece.tobytes(), int(PIECE_SECONDS / CHUNK_SECONDS)
    costs = []
    async with platform(1, sleeping=True) as measured:
        session_id = await opened(measured, language_code="en", final_job=False)
        for number in range(LONG_SECONDS // PIECE_SECONDS + 1):
            before = cpu_seconds(measured.pid("concatenation"))
            await send(measured, session_id, pcm, number * count)
            # Silence is noted after 10 s of it: then all that was said before is heard.
            await _transcribed(measured, session_id, (number + 1) * PIECE_SECONDS - 11)
            costs.append(cpu_seconds(measured.pid("concatenation")) - before)
        await close(measured, session_id)
    early, late = (statistics.median(some) / PIECE_SECONDS for some in (costs[1:4], costs[-3:]))
    detail = (
        f"{late * 1e3:.1f} and {early * 1e3:.1f} ms for a second of sound, "
        "transcription not counted"
    )
    name = f"CPU of a session in hour {LONG_SECONDS // 3600} over its first minutes"
    return [result(13, name, [late / early], 1.1, detail, at_most=True)]


async def closing(folder: Path, rounds: int) -> list[Result]:
    """How long it takes to close a session of ten hours, and one of a minute; once."""
    minute = spoken(60).tobytes()
    async with platform(1, sleeping=True) as measured:
        short = await _closed(measured, minute, 1)
        long = await _closed(measured, minute, 60 * CLOSED_HOURS)
    name = f"seconds from CloseSession to the audio, after {CLOSED_HOURS} hours"
    return [result(14, name, [long], 10, f"after a minute {short:.1f} s", at_most=True)]


async def _closed(measured: Measured, minute: bytes, minutes: int) -> float:
    session_id = await opened(measured, live_results=False, final_job=False)
    whole, before = len(minute) * minutes, (await s3_bytes(measured)).get("put", 0)
    for sequence, done in enumerate(range(0, minutes, 5)):
        await _append(measured, session_id, sequence, minute * min(5, minutes - done))

    async def joined() -> bool:
        """What came in real time has been joined when it ends, all but a head and a tail."""
        return (await s3_bytes(measured))["put"] - before > 2 * whole - 3 * PART_BYTES

    await eventually(joined)
    began = time.perf_counter()
    session = await close(measured, session_id)
    while not session.audio_id:
        session = await close(measured, session_id)
    seconds = time.perf_counter() - began
    request = upload_pb2.GetAudioRequest(audio_id=session.audio_id)
    audio = (await measured.client.uploads.GetAudio(request)).audio
    assert audio.size_bytes == whole + WAV_HEADER_BYTES
    return seconds


async def _transcribed(measured: Measured, session_id: str, seconds: float) -> None:
    request = pb.WatchSessionRequest(session_id=session_id)
    request.after_revision = (await _get(measured, session_id)).revision
    call = measured.client.sessions.WatchSession(request)
    async for told in call:
        if told.HasField("status") and seconds_of(told.status.transcribed_duration) >= seconds:
            break
    call.cancel()  # what nobody reads would fill the connection


async def _get(measured: Measured, session_id: str) -> pb.Session:
    request = pb.GetSessionRequest(session_id=session_id)
    return (await measured.client.sessions.GetSession(request)).session


async def _most(folder: Path, measured: Measured | None) -> int:
    """The greatest number of sessions that kept up; each step tries half as many again."""
    kept, count = 0, 1
    while count <= MOST_SESSIONS:
        spoken_now = [with_silence(spoken(SESSION_SECONDS, 37 * number)) for number in range(count)]
        if measured is not None:
            found = [each for each, _ in await heard(measured, spoken_now)]
        else:
            paths = [
                write_wav(folder / f"session-{number}.wav", samples)
                for number, samples in enumerate(spoken_now)
            ]
            found = await heard_alone(paths)
        latencies = [latency for each in found for latency in each.latencies]
        assert len(latencies) >= count, "nothing was heard in some sessions"
        if quantiles(latencies)[1] > LATE_SECONDS:
            break
        kept, count = count, count + max(1, count // 2)
    return kept


async def heard(
    measured: Measured, sessions: Sequence[np.ndarray]
) -> list[tuple[Heard, list[float]]]:
    """Streams sessions in real time; returns what was heard, and how long chunks were not acked."""
    return await asyncio.gather(*(_one_heard(measured, samples) for samples in sessions))


async def _one_heard(measured: Measured, samples: np.ndarray) -> tuple[Heard, list[float]]:
    session_id = await opened(measured, language_code="en", final_job=False)
    found, sent = Heard(), dict[int, float]()
    waits: list[float] = []
    clock = time.perf_counter
    stub = measured.client.sessions

    async def view() -> None:
        request = pb.WatchSessionRequest(session_id=session_id)
        async for told in stub.WatchSession(request):
            found.told(told)

    async def listen() -> None:
        async for response in call:
            waits.extend(clock() - sent.pop(sequence) for sequence in response.ack.sequences)

    call = stub.StreamAudio()
    start = pb.StreamAudioStart(session_id=session_id)
    await call.write(pb.StreamAudioRequest(start=start))
    await call.read()
    viewing = asyncio.create_task(view())
    listening = asyncio.create_task(listen())
    found.begin()
    pcm = samples.tobytes()
    for sequence, at in enumerate(range(0, len(pcm), CHUNK_BYTES)):
        await found.until((sequence + 1) * CHUNK_SECONDS)
        sent[sequence] = clock()
        chunk = pb.Chunk(sequence=sequence, content=pcm[at : at + CHUNK_BYTES])
        await call.write(pb.StreamAudioRequest(chunk=chunk))
    await call.done_writing()
    await listening
    await close(measured, session_id)
    await viewing
    assert not sent
    assert (await recording(measured, session_id)).endswith(pcm)
    return found, waits


async def heard_alone(paths: Sequence[Path]) -> list[Heard]:
    """The same in one process, without services."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.hearing", *map(str, paths), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [Heard.of(each) for each in json.loads(out)]


def with_silence(samples: np.ndarray) -> np.ndarray:
    """With two seconds behind it, so that its last utterance ends before the recording does."""
    return np.concatenate([samples, np.zeros(2 * SAMPLE_RATE, np.int16)])


def quantiles(values: Sequence[float]) -> tuple[float, float]:
    """p50 and p95."""
    middle, high = np.quantile(values, (0.5, 0.95))
    return float(middle), float(high)


async def opened(measured: Measured, **config: object) -> str:
    """Opens a session for 16 kHz mono."""
    values = {"encoding": pb.AUDIO_ENCODING_LINEAR16, "sample_rate_hertz": SAMPLE_RATE} | config
    request = pb.CreateSessionRequest(config=pb.SessionConfig(**values))  # type: ignore[arg-type]
    return (await measured.client.sessions.CreateSession(request)).session.session_id


async def send(measured: Measured, session_id: str, pcm: bytes, first: int = 0) -> None:
    """Sends chunks, from a sequence on, as fast as they are taken; waits until all are acked."""
    call = measured.client.sessions.StreamAudio()
    start = pb.StreamAudioStart(session_id=session_id)
    await call.write(pb.StreamAudioRequest(start=start))

    async def write() -> None:
        for sequence, at in enumerate(range(0, len(pcm), CHUNK_BYTES), first):
            chunk = pb.Chunk(sequence=sequence, content=pcm[at : at + CHUNK_BYTES])
            await call.write(pb.StreamAudioRequest(chunk=chunk))
        await call.done_writing()

    writing = asyncio.create_task(write())
    acked: set[int] = set()
    async for response in call:
        acked.update(response.ack.sequences)
    await writing
    assert acked == set(range(first, first + -(-len(pcm) // CHUNK_BYTES)))


async def close(measured: Measured, session_id: str) -> pb.Session:
    """Ends a session."""
    request = pb.CloseSessionRequest(session_id=session_id)
    return (await measured.client.sessions.CloseSession(request)).session


async def recording(measured: Measured, session_id: str) -> bytes:
    """The finished file."""
    request = pb.GetRecordingRequest(session_id=session_id, form=pb.RECORDING_FORM_FILE)
    url = (await measured.client.sessions.GetRecording(request)).url
    return await asyncio.to_thread(_fetch, url)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        return bytes(response.read())


async def s3_bytes(measured: Measured) -> dict[str, float]:
    """What the concatenation service has moved to and from S3, by operation."""
    address = measured.platform.address_of("concatenation-metrics")
    text = (await asyncio.to_thread(_fetch, f"http://{address}/metrics")).decode()
    return {
        sample.labels["operation"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "steno_s3_bytes_total"
    }
