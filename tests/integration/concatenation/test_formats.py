"""Containers as files and as streams; what is no audio says so."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from live_sessions import Producer, Samples, Service, cut, failure_of
from recordings import RATE, decoded, encoded, samples_of
from steno.audio import decode, in_memory
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

from .conftest import StartService

FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "webm", "aac")


@pytest.fixture(scope="session")
def speech() -> Samples:
    return samples_of("demo.opus")[: 12 * RATE]


async def alone(file: bytes) -> Samples:
    """What the sandbox makes of a whole file."""
    async with decode(in_memory(file), len(file)) as decoding:
        return np.concatenate([block async for block in decoding])


@pytest.mark.parametrize("name", [*FORMATS, "m4a"])
async def test_files_of_each_format_follow_one_another(
    service: Service, speech: Samples, name: str
) -> None:
    files = [encoded(part, name) for part in (speech[: 5 * RATE], speech[5 * RATE :])]
    session = await service.open(
        encoding=pb.AUDIO_ENCODING_CONTAINER, chunk_form=pb.CHUNK_FORM_FILES
    )

    for sequence in (1, 0):
        await service.append(session.session_id, sequence, files[sequence])
    await service.close(session.session_id)

    recorded = decoded(await service.file(session.session_id))
    assert np.array_equal(recorded, np.concatenate([await alone(file) for file in files]))


@pytest.mark.parametrize("name", FORMATS)
async def test_a_stream_of_each_format_may_be_cut_anywhere(
    service: Service, speech: Samples, name: str
) -> None:
    file = encoded(speech, name)
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    chunks = list(enumerate(cut(file, 777)))
    random.seed(1)
    random.shuffle(chunks)

    await Producer([service.stub], session.session_id).send(chunks)
    closed = await service.close(session.session_id)

    assert not closed.error.reason
    recorded, expected = decoded(await service.file(session.session_id)), await alone(file)
    assert np.array_equal(recorded[: len(expected)], expected)
    # What an MP3's encoder has padded its end with can't be told without its length.
    assert len(recorded) - len(expected) <= (RATE // 20 if name == "mp3" else 0)


@pytest.mark.parametrize("before", [[None], [b"no audio at all"], [b"none", None, b"nor here"]])
async def test_first_files_that_are_not_there_are_as_long_as_the_one_after_them(
    service: Service, speech: Samples, before: list[bytes | None]
) -> None:
    session = await service.open(
        encoding=pb.AUDIO_ENCODING_CONTAINER,
        chunk_form=pb.CHUNK_FORM_FILES,
        gap_timeout=duration_of(0),
    )
    heard = speech[: 3 * RATE]

    for sequence, file in enumerate([*before, encoded(heard, "wav")]):
        if file is not None:
            await service.append(session.session_id, sequence, file)
    await service.close(session.session_id)

    recorded = decoded(await service.file(session.session_id))
    silence = np.zeros(len(before) * len(heard), np.int16)
    assert np.array_equal(recorded, np.concatenate([silence, heard]))


async def test_a_stream_that_is_too_long_is_recorded_up_to_its_longest_duration(
    service: Service, speech: Samples
) -> None:
    session = await service.open(
        encoding=pb.AUDIO_ENCODING_CONTAINER, max_duration=duration_of(2.5)
    )
    file = encoded(speech, "wav")
    await service.append(session.session_id, 0, file)

    async def is_full() -> bool:
        duration = (await service.get(session.session_id)).duration
        return duration.ToMilliseconds() == 2500

    await eventually(is_full)
    failure = await failure_of(service.append(session.session_id, 1, b"more"))
    await service.close(session.session_id)

    assert failure.reason == "SESSION_TOO_LONG"
    recorded = decoded(await service.file(session.session_id))
    assert np.array_equal(recorded, speech[: round(2.5 * RATE)])


async def test_a_stream_is_recorded_to_the_sample_though_its_decoding_dies(
    start_service: StartService, speech: Samples
) -> None:
    service = await start_service()
    file = encoded(speech, "flac")
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    half = len(file) // 2
    await service.append(session.session_id, 0, file[:half])

    async def recorded_seconds() -> float:
        return (await service.get(session.session_id)).duration.seconds

    await eventually(lambda: at_least(recorded_seconds, 3))
    service.kill()
    service.start()
    await eventually(service.serves)
    await service.append(session.session_id, 1, file[half:])
    await service.close(session.session_id)

    assert np.array_equal(decoded(await service.file(session.session_id)), await alone(file))


async def at_least(measure: Callable[[], Awaitable[float]], least: float) -> bool:
    return await measure() >= least


async def test_a_stream_that_is_no_audio_ends_the_session_and_says_why(service: Service) -> None:
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)

    await service.append(session.session_id, 0, b"#EXTM3U\n/etc/passwd\n" * 100)

    async def ended() -> pb.Session | None:
        seen = await service.get(session.session_id)
        return seen if seen.state == pb.SESSION_STATE_CLOSED else None

    await service.append(session.session_id, 1, b"#EXTM3U\n" * 9000)
    seen = await eventually(ended)
    assert seen is not None
    assert seen.error.reason == "UNSUPPORTED_FORMAT"
    assert "playlist" in seen.error.message


async def test_a_file_that_is_no_audio_is_a_gap_and_the_others_are_kept(
    service: Service, speech: Samples
) -> None:
    part = speech[: 2 * RATE]
    session = await service.open(
        encoding=pb.AUDIO_ENCODING_CONTAINER, chunk_form=pb.CHUNK_FORM_FILES
    )

    for sequence, file in enumerate((encoded(part, "wav"), b"text " * 50, encoded(part, "wav"))):
        await service.append(session.session_id, sequence, file)
    closed = await service.close(session.session_id)

    recorded = decoded(await service.file(session.session_id))
    assert np.array_equal(recorded, np.concatenate([part, np.zeros_like(part), part]))
    (gap,) = (await service.recording(session.session_id)).gaps
    assert (gap.first_sequence, gap.cause) == (1, pb.GAP_CAUSE_UNDECODABLE)
    assert closed.gap_duration.seconds == 2


async def test_a_missing_file_is_silence_as_long_as_the_one_before_it(
    service: Service, speech: Samples
) -> None:
    part = speech[: 2 * RATE]
    session = await service.open(
        encoding=pb.AUDIO_ENCODING_CONTAINER,
        chunk_form=pb.CHUNK_FORM_FILES,
        gap_timeout=duration_of(0.1),
    )

    for sequence in (0, 3):
        await service.append(session.session_id, sequence, encoded(part, "wav"))
    closed = await service.close(session.session_id)

    recorded = decoded(await service.file(session.session_id))
    expected = [part, np.zeros_like(part), np.zeros_like(part), part]
    assert np.array_equal(recorded, np.concatenate(expected))
    assert closed.gap_duration.seconds == 4


async def test_hostile_bytes_are_decoded_in_a_child_of_its_own(
    start_service: StartService, speech: Samples
) -> None:
    service = await start_service()
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    await service.append(session.session_id, 0, encoded(speech, "flac"))

    def decoder() -> int:
        """The one that runs: another may just have ended."""
        found = [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if parent_of(Path(f"/proc/{parent_of(process)}")) == service.process.pid
        ]
        return found[0] if len(found) == 1 else 0

    async def is_decoded() -> bool:
        return (await service.get(session.session_id)).duration.ToMilliseconds() > 0

    await eventually(is_decoded)  # what the process tries at its start decodes nothing
    os.kill(await eventually(decoder), signal.SIGKILL)
    await service.close(session.session_id)

    assert len(decoded(await service.file(session.session_id))) == len(speech)


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
