"""`steno transcribe`: files in, transcripts out."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from steno.cli.connection import PATIENCE_SECONDS, Services, connect
from steno.cli.failures import CliError, Exit, ended_badly, report
from steno.cli.following import follow, get_job
from steno.cli.progress import Line, Progress
from steno.cli.recognition import options_of
from steno.cli.rendering import clock, fields, print_json, say
from steno.cli.transcripts import get_transcript
from steno.cli.uploading import STDIN, Uploader, check_readable
from steno.platform.wellknown import timestamp_of
from steno.speech import render_options
from steno.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    CreateJobRequest,
    Job,
    JobPriority,
)
from steno.v1.transcript_pb2 import RecognitionConfig


def check(options: argparse.Namespace) -> None:
    """Refuses before anything is sent what can't end well. Raises CliError."""
    for path in options.files:
        check_readable(path)
    if options.files.count(STDIN) > 1:
        raise CliError("stdin can be read only once", Exit.USAGE)
    if options.output:
        file_names(options.files, options.format)
    elif len(options.files) > 1 and options.format not in ("txt", "json") and options.wait:
        raise CliError(f"several files as {options.format} need a folder: --output DIR", Exit.USAGE)


async def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    check(options)
    async with connect(options, PATIENCE_SECONDS) as services:
        return await transcribe(services, options)


async def transcribe(
    services: Services, options: argparse.Namespace, *, lasting: bool = True
) -> int:
    """Transcribes files on running services; returns the exit code.

    Args:
        services: where to ask.
        options: of the command line.
        lasting: whether the services are there still when this has been interrupted.
    """
    uploader = Uploader(services)
    progress = Progress(len(options.files), leave=bool(options.output))
    batch = _Batch(services, uploader, progress, options)
    try:
        with progress:
            return await batch.run()
    except asyncio.CancelledError:
        if lasting:
            batch.say_how_to_look_again()
        raise
    finally:
        uploader.close()


class _Batch:
    """All files of one command, on their way at once; results come in the order given."""

    def __init__(
        self,
        services: Services,
        uploader: Uploader,
        progress: Progress,
        options: argparse.Namespace,
    ) -> None:
        self._services = services
        self._uploader = uploader
        self._progress = progress
        self._options = options
        self._config = config_of(options)
        self._labels = dict(options.labels)
        self._file_names = file_names(options.files, options.format) if options.output else {}
        self._unsent = list(options.files)
        self._jobs: dict[str, Job] = {}
        self._gap = ""
        self._broken = False

    async def run(self) -> int:
        """Returns the exit code; what fails for one file does not touch the others."""
        paths = self._options.files
        work = [
            asyncio.create_task(self._one(path, self._progress.line(name_of(path))))
            for path in paths
        ]
        code = 0
        ended: list[Job] = []
        try:
            for path, one in zip(paths, work, strict=True):
                try:
                    job, text = await one
                    self._give(path, job, text)
                except CliError as error:
                    code = max(code, error.code)
                    report(error.about(name_of(path)), self._options.json)
                else:
                    ended.append(job)
        except asyncio.CancelledError:
            await _cancel(work)
            raise
        if self._options.json:
            print_json({"jobs": [fields(job) for job in ended]})
        self._progress.stop()
        return code

    async def _one(self, path: str, line: Line) -> tuple[Job, str]:
        """One file's whole way; returns its job and its transcript."""
        job = None
        try:
            job = await self._create(path, line)
            if not self._options.wait:
                line.end("job made")
                return job, ""
            job = await self._watch(job, line)
            text = await get_transcript(self._services, job.job_id, self._options.format)
            took = job.end_time.ToDatetime() - job.create_time.ToDatetime()
            line.end(f"done in {clock(took.total_seconds())}")
            return job, text
        except CliError as error:
            line.end(error.message)
            if job is None:
                self._unsent.remove(path)  # why is said
            elif error.code is not Exit.UNREACHABLE:
                del self._jobs[job.job_id]
            else:
                error.hint = f"the job is kept; to look again: steno jobs watch {job.job_id}"
            raise
        finally:
            self._progress.ended()

    async def _create(self, path: str, line: Line) -> Job:
        audio = await self._uploader.upload(path, line.uploading, line.advance)
        request = CreateJobRequest(
            audio_id=audio.audio_id,
            config=self._config,
            labels=self._labels,
            priority=JobPriority.Value(f"JOB_PRIORITY_{self._options.priority.upper()}"),
            not_before=timestamp_of(self._options.not_before),
            deadline=timestamp_of(self._options.deadline),
            allow_gaps=self._options.allow_gaps,
            request_id=str(uuid4()),
        )
        jobs = await self._services.jobs()
        job = (await self._services.call("job", jobs.CreateJob, request)).job
        self._unsent.remove(path)
        self._jobs[job.job_id] = job
        line.job(job.state, job.progress)
        return job

    async def _watch(self, job: Job, line: Line) -> Job:
        """Shows what happens until the job has ended. Raises CliError unless it has succeeded."""
        async for response in follow(self._services, job.job_id, self._interrupted):
            line.heard(response)
        job = await get_job(self._services, job.job_id)
        raise_unless_succeeded(job)
        return job

    def _give(self, path: str, job: Job, text: str) -> None:
        """Hands a result out: to stdout, or to a file. Raises CliError if it can't be written."""
        del self._jobs[job.job_id]
        name = name_of(path)
        if job.audio_truncated:
            say(truncation(name, job))
        if job.failed_slice_count:
            say(left_out(name, job))
        if self._options.output and self._options.wait:
            write(Path(self._options.output), self._file_names[path], text)
        elif self._options.json:
            return
        else:
            with self._progress.paused():
                self._print(name, job, text)

    def _print(self, name: str, job: Job, text: str) -> None:
        if not self._options.wait:
            print(job.job_id, flush=True)
            return
        if len(self._options.files) > 1 and self._options.format == "txt":
            print(f"{self._gap}==> {name} <==")
            self._gap = "\n"
        sys.stdout.write(text)
        sys.stdout.flush()

    def _interrupted(self) -> None:
        if not self._broken:
            self._broken = True
            if self._progress.shown:
                say("steno: the connection broke; going on where it was")

    def say_how_to_look_again(self) -> None:
        """Tells on stderr which jobs go on, and which files have none."""
        if self._jobs:
            say("steno: what has been sent goes on without you; to look again:")
        for job_id in self._jobs:
            say(f"  steno jobs watch {job_id}")
        for path in self._unsent:
            say(f"steno: {name_of(path)}: was not sent")


def config_of(typed: argparse.Namespace) -> RecognitionConfig:
    """What is asked of the model. A switch that is not given is left to the platform."""
    config = render_options(options_of(typed))
    if typed.vad_filter:
        config.ClearField("vad_filter")
    return config


def raise_unless_succeeded(job: Job) -> None:
    """Raises CliError for a job that has failed or was cancelled."""
    if job.state == JOB_STATE_FAILED:
        raise ended_badly(job.error.reason, job.error.message)
    if job.state == JOB_STATE_CANCELLED:
        raise CliError("the job was cancelled", reason="CANCELLED")


def truncation(name: str, job: Job) -> str:
    """What to say of a recording that was cut."""
    length = clock(job.progress.audio_duration)
    return f"steno: {name}: ends in the middle; its readable part ({length}) was transcribed"


def left_out(name: str, job: Job) -> str:
    """What to say of a recording of which something could not be transcribed."""
    length = clock(job.coverage.gap_duration)
    return f"steno: {name}: {length} left out: {job.error.message}"


def name_of(path: str) -> str:
    """The name that people know a file by."""
    return "stdin" if path == STDIN else path


def file_names(paths: Sequence[str], extension: str) -> Mapping[str, str]:
    """Names of the files with the transcripts.

    `talk.txt`; or `talk.mp3.txt` and `talk.wav.txt` if there are two talks.

    Raises CliError if two inputs would still be written to the same file.
    """
    short = {path: Path(name_of(path)).stem for path in paths}
    often = Counter(short.values())
    names = {
        path: f"{stem if often[stem] == 1 else Path(name_of(path)).name}.{extension}"
        for path, stem in short.items()
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            twins = " and ".join(path for path in paths if names[path] == name)
            raise CliError(f"{twins} would both be written to {name}", Exit.USAGE)
    return names


def write(folder: Path, name: str, text: str) -> None:
    """Writes a transcript, whole or not at all. Raises CliError."""
    part = folder / f".{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        part.replace(folder / name)
    except OSError as error:
        raise CliError(f"{folder / name}: {(error.strerror or str(error)).lower()}") from error


async def _cancel(work: Sequence[asyncio.Task[object]]) -> None:
    for one in work:
        one.cancel()
    await asyncio.gather(*work, return_exceptions=True)
