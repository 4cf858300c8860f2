"""`steno transcript`: what a job has found."""

from __future__ import annotations

import argparse
import sys

from steno.cli.connection import Services, connect
from steno.cli.rendering import fields, print_json
from steno.v1.job_pb2 import GetTranscriptRequest, TranscriptFormat


async def show(options: argparse.Namespace) -> int:
    """Prints a job's transcript."""
    request = GetTranscriptRequest(
        job_id=options.job_id,
        allow_partial=options.partial,
        include_dropped=options.include_dropped,
    )
    async with connect(options) as services:
        await print_transcript(services, request, options)
    return 0


async def print_transcript(
    services: Services, request: GetTranscriptRequest, options: argparse.Namespace
) -> None:
    """Prints the transcript that is asked for: its fields with --json, else in --format."""
    if not options.json:
        request.format = _format(options.format)
    stub = await services.jobs()
    response = await services.call("job", stub.GetTranscript, request)
    if options.json:
        print_json(fields(response.transcript))
    else:
        sys.stdout.write(response.rendered)


async def get_transcript(services: Services, job_id: str, target: str) -> str:
    """Returns a transcript in one of the formats. Raises CliError."""
    stub = await services.jobs()
    request = GetTranscriptRequest(job_id=job_id, format=_format(target))
    return (await services.call("job", stub.GetTranscript, request)).rendered


def _format(target: str) -> TranscriptFormat.ValueType:
    return TranscriptFormat.Value(f"TRANSCRIPT_FORMAT_{target.upper()}")
