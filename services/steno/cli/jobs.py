"""`steno jobs`: what was asked for, and how far it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from uuid import uuid4

from steno.cli.connection import PATIENCE_SECONDS, Services, connect
from steno.cli.failures import CliError, report
from steno.cli.following import follow, get_job
from steno.cli.progress import Line, Progress, standing
from steno.cli.rendering import (
    clock,
    fields,
    job_state,
    percent,
    print_fields,
    print_json,
    print_page,
    say,
    segment_line,
    time,
)
from steno.cli.transcribe import left_out, raise_unless_succeeded, truncation
from steno.v1.job_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    Job,
    JobState,
    ListJobsRequest,
    RetryJobRequest,
    WatchJobResponse,
)


async def list_jobs(options: argparse.Namespace) -> int:
    """Prints jobs, newest first."""
    async with connect(options) as services:
        stub = await services.jobs()
        request = ListJobsRequest(
            page_size=options.limit,
            page_token=options.page_token,
            states=[JobState.Value(f"JOB_STATE_{state.upper()}") for state in options.states],
            labels=dict(options.labels),
        )
        response = await services.call("job", stub.ListJobs, request)
    print_page(
        "jobs",
        response.jobs,
        response.next_page_token,
        {
            "JOB": lambda job: job.job_id,
            "STATE": lambda job: job_state(job.state),
            "DONE": lambda job: percent(job.progress.fraction),
            "LENGTH": lambda job: clock(job.progress.audio_duration),
            "CREATED": lambda job: time(job.create_time),
            "NAME": lambda job: job.display_name,
        },
        as_json=options.json,
    )
    return 0


async def get(options: argparse.Namespace) -> int:
    """Prints one job."""
    async with connect(options) as services:
        job = await get_job(services, options.job_id)
    print_job(job, options.json)
    return 0


async def watch(options: argparse.Namespace) -> int:
    """Prints what happens to a job until it has ended: its text, or each message as JSON."""
    async with connect(options, PATIENCE_SECONDS) as services:
        with Progress(1) as progress:
            await _watch(services, progress, options)
        job = await get_job(services, options.job_id)
    name = job.display_name or job.job_id
    if job.audio_truncated and not options.json:
        say(truncation(name, job))
    if job.failed_slice_count and not options.json:
        say(left_out(name, job))
    try:
        raise_unless_succeeded(job)
    except CliError as error:
        report(error.about(name), options.json)
        return error.code
    return 0


async def _watch(services: Services, progress: Progress, options: argparse.Namespace) -> None:
    line = progress.line(options.job_id[:8])
    show = _show_json if options.json else _text_shower(progress, line)
    async for response in follow(services, options.job_id, after_revision=options.after_revision):
        show(response)
    line.end("")


def _show_json(response: WatchJobResponse) -> None:
    print_json(fields(response), indent=None)


def _text_shower(progress: Progress, line: Line) -> Callable[[WatchJobResponse], None]:
    def show(response: WatchJobResponse) -> None:
        line.heard(response)
        if response.event.HasField("segments_added"):
            with progress.paused():
                for segment in response.event.segments_added.segments:
                    print(segment_line(segment))
                sys.stdout.flush()

    return show


async def cancel(options: argparse.Namespace) -> int:
    """Cancels jobs."""
    async with connect(options) as services:
        stub = await services.jobs()
        jobs = [
            (await services.call("job", stub.CancelJob, CancelJobRequest(job_id=job_id))).job
            for job_id in options.job_ids
        ]
    if options.json:
        print_json({"jobs": [fields(job) for job in jobs]})
    return 0


async def retry(options: argparse.Namespace) -> int:
    """Makes a new job of what a failed or cancelled one left undone, and prints its id."""
    async with connect(options) as services:
        stub = await services.jobs()
        request = RetryJobRequest(job_id=options.job_id, request_id=str(uuid4()))
        job = (await services.call("job", stub.RetryJob, request)).job
    if options.json:
        print_json(fields(job))
    else:
        print(job.job_id)
    return 0


async def delete(options: argparse.Namespace) -> int:
    """Removes jobs that have ended."""
    async with connect(options) as services:
        stub = await services.jobs()
        for job_id in options.job_ids:
            await services.call("job", stub.DeleteJob, DeleteJobRequest(job_id=job_id))
    if options.json:
        print_json({"deleted": options.job_ids})
    return 0


def print_job(job: Job, as_json: bool) -> None:
    """Prints one job."""
    if as_json:
        print_json(fields(job))
        return
    print_fields(
        {
            "job": job.job_id,
            "name": job.display_name,
            "state": standing(job.state, job.progress),
            "why": job.error.message,
            "done": percent(job.progress.fraction),
            "length": clock(job.progress.audio_duration),
            "cut": "the file ends in the middle" if job.audio_truncated else "",
            "left out": clock(job.coverage.gap_duration) if job.failed_slice_count else "",
            "deadline": time(job.deadline),
            "language": job.language_code,
            "model": job.config.model,
            "audio": job.audio_id,
            "retry of": job.retry_of_job_id,
            "labels": " ".join(f"{key}={value}" for key, value in sorted(job.labels.items())),
            "created": time(job.create_time),
            "started": time(job.start_time),
            "ended": time(job.end_time),
        }
    )
