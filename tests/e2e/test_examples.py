"""Each of the examples does what its docstring says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from recordings import EXAMPLES, text_of
from running_platform import RunningPlatform
from scoring import words_of

FOLDER = EXAMPLES.parent

FORECAST = str(EXAMPLES / "forecast.opus")
ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

RAN: set[str] = set()


class Examples:
    """Runs examples against a platform."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._environment = os.environ | {
            f"STENO_{name.upper()}_ADDRESS": address
            for name, address in platform.platform.addresses.items()
        }

    async def run(self, name: str, *arguments: str, stdin: bytes = b"") -> str:
        """Returns what an example prints."""
        RAN.add(name)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(FOLDER / f"{name}.py"), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        out, err = await process.communicate(stdin)
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def made(self, what: str, name: str, *arguments: str, stdin: bytes = b"") -> str:
        """Returns the id of what an example has made."""
        printed = await self.run(name, *arguments, stdin=stdin)
        [found] = re.findall(rf"^{what} ({ID})", printed, re.MULTILINE)
        return str(found)


@pytest.fixture
async def examples(platform: RunningPlatform) -> Examples:
    return Examples(platform)


@pytest.fixture
async def audio_id(examples: Examples) -> str:
    return await examples.made("audio", "upload_stream", stdin=Path(FORECAST).read_bytes())


@pytest.fixture
async def job_id(examples: Examples, audio_id: str) -> str:
    return await examples.made("job", "create_job_once", audio_id)


async def test_a_recording_is_uploaded_and_its_text_printed_as_it_is_found(
    examples: Examples,
) -> None:
    printed = await examples.run("transcribe", FORECAST)
    assert re.search(r"^0:00:0\d\S* .*\w", printed, re.MULTILINE), printed
    assert "JOB_STATE_SUCCEEDED" in printed


async def test_a_short_recording_is_transcribed_in_one_call(examples: Examples) -> None:
    language, text = (await examples.run("recognize", FORECAST)).splitlines()
    assert re.fullmatch(r"en, 0:00:1\d\S*", language)
    assert text


async def test_an_upload_that_was_broken_off_goes_on(examples: Examples, tmp_path: Path) -> None:
    path = tmp_path / "two-parts.bin"
    path.write_bytes(os.urandom(10 * 2**20))
    begun = await examples.run("resume_upload", str(path))
    assert re.search(r"2 of 2 parts are missing", begun), begun
    [upload_id] = re.findall(ID, begun)
    assert "1 of 2 parts are missing" in await examples.run("resume_upload", str(path), upload_id)


async def test_a_job_is_followed_to_its_end(examples: Examples, job_id: str) -> None:
    printed = await examples.run("watch_job", job_id)
    assert printed.splitlines()[-1] == "JOB_STATE_SUCCEEDED", printed


async def test_a_transcript_is_read_in_several_ways(examples: Examples, job_id: str) -> None:
    assert re.search(r"\w", await examples.run("many_at_once", job_id))
    assert re.search(r"00:00:0\d,\d{3} --> ", await examples.run("subtitles", job_id))
    assert re.search(r"speech +0:00:0\d", await examples.run("coverage", job_id))


async def test_jobs_are_made_at_once_and_found_by_their_label(
    examples: Examples, audio_id: str
) -> None:
    made = re.findall(ID, await examples.run("batch_jobs", audio_id, audio_id))
    assert len(made) == 2
    listed = await examples.run("list_jobs", "project", "archive")
    assert set(made) <= set(re.findall(ID, listed))


async def test_words_have_their_times(examples: Examples, audio_id: str) -> None:
    printed = await examples.run("word_times", audio_id)
    assert re.search(r"^0:00:0\d\S* \d+% \w", printed, re.MULTILINE), printed


async def test_a_job_that_was_cancelled_is_retried(examples: Examples, tmp_path: Path) -> None:
    long = Path(EXAMPLES / "ten-minutes.opus").read_bytes()
    audio_id = await examples.made("audio", "upload_stream", stdin=long)
    job_id = await examples.made("job", "create_job_once", audio_id)
    cancelled, retried = (await examples.run("cancel_and_retry", job_id)).splitlines()
    assert cancelled == f"{job_id} JOB_STATE_CANCELLED"
    assert "goes on from" in retried
    await examples.run("cancel_and_retry", re.findall(ID, retried)[0])


async def test_errors_are_explained(examples: Examples) -> None:
    printed = await examples.run("errors")
    assert "field job_id" in printed
    assert "reason JOB_NOT_FOUND" in printed


async def test_models_are_listed(examples: Examples) -> None:
    assert re.search(r"^\S+ \S+ int8\S* ", await examples.run("models"), re.MULTILINE)


async def test_an_audio_is_downloaded_and_deleted(
    examples: Examples, audio_id: str, job_id: str, tmp_path: Path
) -> None:
    await examples.run("download", audio_id, str(tmp_path / "back.opus"))
    assert (tmp_path / "back.opus").read_bytes() == Path(FORECAST).read_bytes()
    await examples.run("watch_job", job_id)
    assert f"deleted job {job_id}" in await examples.run("delete", job_id)


async def test_a_live_session_is_sent_watched_and_recorded(examples: Examples) -> None:
    wav = str(EXAMPLES / "spelling.wav")
    *heard, end = (await examples.run("live_producer", wav)).splitlines()
    final = " ".join(line for line in heard if not line.startswith("..."))
    assert words_of(final) == words_of(text_of("spelling.wav"))
    assert re.fullmatch(rf"audio {ID} final transcript: job {ID}", end)
    session_id = await examples.made("session", "live_append", wav)
    assert re.search(r"^0:00:\d", await examples.run("live_viewer", session_id), re.MULTILINE)
    recording = await examples.run("live_recording", session_id)
    assert "#EXTM3U" in recording
    assert "http" in recording.splitlines()[-1]


def test_all_examples_were_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == RAN
