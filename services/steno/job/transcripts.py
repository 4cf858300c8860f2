"""The transcript of a job, structured or written in a format."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from steno.job.messages import parse_result
from steno.job.store import Joined
from steno.platform.wellknown import duration_of
from steno.speech import parse_options, render_coverage, render_options, render_segment
from steno.transcript import (
    FORMATS,
    SAMPLE_RATE,
    Model,
    SliceTranscript,
    Transcript,
    join_coverage,
    stitch,
)
from steno.v1 import job_pb2, transcript_pb2

AT_ONCE = 2
"""Transcripts that are written at once: more would only take the processor from the event loop."""


class Transcripts:
    """Writes transcripts in threads: a long one takes seconds, in which calls are answered."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "transcript")

    async def render(
        self, joined: Joined, target: job_pb2.TranscriptFormat.ValueType, *, include_dropped: bool
    ) -> bytes:
        """Answers what is transcribed, in the format that was asked for.

        Returns:
            A GetTranscriptResponse, encoded.
        """
        # Who goes away while others' are written takes no thread.
        return await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: render_transcript(
                joined, target, include_dropped=include_dropped
            ).SerializeToString(),
        )


def render_transcript(
    joined: Joined, target: job_pb2.TranscriptFormat.ValueType, *, include_dropped: bool
) -> job_pb2.GetTranscriptResponse:
    """Answers what is transcribed, in the format that was asked for."""
    slices = [parse_result(piece, result) for piece, result in joined.results]
    transcript = _transcript(joined, slices, include_dropped)
    if target != job_pb2.TRANSCRIPT_FORMAT_UNSPECIFIED:
        name = job_pb2.TranscriptFormat.Name(target).removeprefix("TRANSCRIPT_FORMAT_").lower()
        return job_pb2.GetTranscriptResponse(
            rendered=FORMATS[name].write(transcript), content_type=FORMATS[name].content_type
        )
    job = joined.job
    return job_pb2.GetTranscriptResponse(
        transcript=transcript_pb2.Transcript(
            job_id=str(job.job_id),
            audio_id=str(job.audio_id),
            text=transcript.text,
            language_code=transcript.language,
            audio_duration=duration_of(transcript.duration),
            model=_model(joined),
            config=_config(joined),
            segments=map(render_segment, transcript.segments),
            dropped_segments=map(render_segment, transcript.dropped or ()),
            audio_truncated=transcript.truncated,
            coverage=render_coverage(join_coverage(slices)),
        )
    )


def _transcript(
    joined: Joined, slices: Sequence[SliceTranscript], include_dropped: bool
) -> Transcript:
    dropped = [replace(piece, segments=piece.dropped) for piece in slices]
    model, job = _model(joined), joined.job
    words = job.config.word_time_offsets
    return Transcript(
        segments=tuple(stitch(slices, words=words)),
        language=job.language_code,
        duration=job.sample_count / SAMPLE_RATE,
        model=Model(model.name, model.revision, model.compute_type),
        options=parse_options(_config(joined)),
        truncated=job.audio_truncated,
        dropped=tuple(stitch(dropped, words=words)) if include_dropped else None,
    )


def _first(joined: Joined) -> transcript_pb2.SliceTranscript:
    results = (result for _, result in joined.results if result is not None)
    return transcript_pb2.SliceTranscript.FromString(next(results, b""))


def _model(joined: Joined) -> transcript_pb2.ModelInfo:
    """The model that made the first slice; before that, the name that was asked for."""
    first = _first(joined)
    if first.HasField("model"):
        return first.model
    return transcript_pb2.ModelInfo(name=joined.job.config.model)


def _config(joined: Joined) -> transcript_pb2.RecognitionConfig:
    """The options that the first slice was made with; before that, those that were asked for."""
    first = _first(joined)
    if first.HasField("config"):
        return first.config
    return render_options(joined.job.config.with_detected(joined.job.language_code))
