"""`steno sessions transcript`: what was said in a session, by its job or live."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from steno.cli.connection import Services, connect
from steno.cli.following import follow_session, get_job, get_session
from steno.cli.rendering import fields, job_state, print_json, say
from steno.cli.transcripts import print_transcript
from steno.platform.wellknown import seconds_of
from steno.speech import parse_segment
from steno.transcript import FORMATS, Model, Transcript
from steno.v1 import transcript_pb2
from steno.v1.concatenation_pb2 import Session
from steno.v1.job_pb2 import JOB_STATE_SUCCEEDED, GetTranscriptRequest
from steno.v1.transcript_pb2 import Segment


async def show(options: argparse.Namespace) -> int:
    """Prints the final transcript once there is one, else the live one as far as it is."""
    async with connect(options) as services:
        session = await get_session(services, options.session_id)
        if session.job_id and not options.live:
            job = await get_job(services, session.job_id)
            if job.state == JOB_STATE_SUCCEEDED:
                await print_transcript(services, GetTranscriptRequest(job_id=job.job_id), options)
                return 0
            state = job_state(job.state)
            say(f"steno: this is the live transcript; the final one, job {job.job_id}, is {state}")
        heard = await _heard(services, session)
    if options.json:
        print_json(fields(heard))
    else:
        sys.stdout.write(FORMATS[options.format].write(_written(heard)))
    return 0


async def _heard(services: Services, session: Session) -> transcript_pb2.Transcript:
    """The live transcript up to where the session is."""
    segments: list[Segment] = []
    async for response in follow_session(services, session.session_id):
        if response.event.HasField("result_added"):
            segments.append(response.event.result_added.segment)
        if response.event.revision >= session.revision:
            break
    return transcript_pb2.Transcript(
        audio_id=session.audio_id,
        text="".join(segment.text for segment in segments).strip(),
        language_code=session.config.language_code or _most_frequent(segments),
        audio_duration=session.duration,
        segments=segments,
    )


def _most_frequent(segments: Sequence[Segment]) -> str:
    languages = Counter(segment.language_code for segment in segments)
    return max(languages, key=languages.__getitem__, default="")


def _written(heard: transcript_pb2.Transcript) -> Transcript:
    return Transcript(
        segments=tuple(map(parse_segment, heard.segments)),
        language=heard.language_code,
        duration=seconds_of(heard.audio_duration),
        model=Model("", "", ""),
    )
