"""`steno transcript`: what a job has found."""

from __future__ import annotations

import argparse
import sys

from steno.cli.connection import Services, connect
from steno.cli.rendering import fields, print_json
from steno.v1.job_pb2 import GetTranscriptRequest, TranscriptFormat

FORMATS = ("txt", "srt", "vtt", "tsv", "json")


async def show(options: argparse.Namespace) -> int:
    """Prints a job's transcript."""
    async with connect(options) as services:
        if options.json:
            stub = await services.jobs()
            request = GetTranscriptRequest(
                job_id=options.job_id,
                allow_partial=options.partial,
                include_dropped=options.include_dropped,
            )
            response = await services.call("job", stub.GetTranscript, request)
            print_json(fields(response.transcript))
            return 0
        text = await get_transcript(
            services,
            options.job_id,
            options.format,
            allow_partial=options.partial,
            include_dropped=options.include_dropped,
        )
        sys.stdout.write(text)
        return 0


async def get_transcript(
    services: Services,
    job_id: str,
    target: str,
    *,
    allow_partial: bool = False,
    include_dropped: bool = False,
) -> str:
    """Returns a transcript in one of FORMATS. Raises CliError."""
    stub = await services.jobs()
    request = GetTranscriptRequest(
        job_id=job_id,
        format=TranscriptFormat.Value(f"TRANSCRIPT_FORMAT_{target.upper()}"),
        allow_partial=allow_partial,
        include_dropped=include_dropped,
    )
    return (await services.call("job", stub.GetTranscript, request)).rendered
