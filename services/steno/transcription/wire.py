"""Between the contracts and the domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration

from steno.audio import SAMPLE_BYTES, to_float
from steno.platform.errors import InvalidArgument, Violation
from steno.transcript import SAMPLE_RATE, Coverage, Segment, Word
from steno.transcription.domain import ModelNotServed, Options, ServedModel
from steno.transcription.engine import Engine, Samples
from steno.v1 import transcript_pb2 as pb


def parse_config(config: pb.RecognitionConfig, engine: Engine) -> Options:
    """Reads options, and refuses those that the model cannot honour.

    Raises:
        ModelNotServed: another model is asked for.
        InvalidArgument: names each option that is refused.
    """
    model = engine.model
    if config.model not in ("", model.name):
        raise ModelNotServed(config.model, model.name)
    options = Options(
        language="" if config.language_code == "auto" else config.language_code,
        translate=config.task == pb.RECOGNITION_TASK_TRANSLATE,
        words=config.enable_word_time_offsets,
        hotwords=tuple(config.hotwords),
        prompt=config.prompt,
        vad_filter=config.vad_filter if config.HasField("vad_filter") else True,
        multilingual=config.multilingual,
        context=config.quality == pb.RECOGNITION_QUALITY_ACCURATE,
    )
    refused = engine.refusals(options)
    if refused:
        raise InvalidArgument([Violation(f"config.{each.option}", each.why) for each in refused])
    return options


def parse_samples(samples: bytes) -> Samples:
    """Reads signed 16-bit samples. Raises InvalidArgument for half a sample."""
    if len(samples) % SAMPLE_BYTES:
        raise InvalidArgument.of("samples", f"must be whole samples of {SAMPLE_BYTES} bytes")
    return to_float(np.frombuffer(samples, dtype="<i2"))


def render_config(options: Options, model: ServedModel) -> pb.RecognitionConfig:
    """Options as they were used: nothing is left to a default."""
    return pb.RecognitionConfig(
        model=model.name,
        language_code=options.language,
        task=(
            pb.RECOGNITION_TASK_TRANSLATE if options.translate else pb.RECOGNITION_TASK_TRANSCRIBE
        ),
        enable_word_time_offsets=options.words,
        hotwords=options.hotwords,
        prompt=options.prompt,
        vad_filter=options.vad_filter,
        multilingual=options.multilingual,
        quality=(
            pb.RECOGNITION_QUALITY_ACCURATE if options.context else pb.RECOGNITION_QUALITY_FAST
        ),
    )


def render_model(model: ServedModel) -> pb.ModelInfo:
    """A worker serves one model: the one that is meant when a request names none."""
    return pb.ModelInfo(
        name=model.name,
        revision=model.revision,
        compute_type=model.compute_type,
        device=model.device,
        language_codes=model.languages,
        is_default=True,
    )


def render_found(segments: Sequence[Segment]) -> tuple[list[pb.Segment], list[pb.Segment]]:
    """Segments that are kept, and those that are dropped."""
    kept = [segment for segment in segments if not segment.is_dropped]
    return render_segments(kept), render_segments([s for s in segments if s.is_dropped])


def render_segments(segments: Sequence[Segment]) -> list[pb.Segment]:
    """Numbers segments from 0."""
    return [
        pb.Segment(
            index=index,
            start_offset=render_seconds(segment.start),
            end_offset=render_seconds(segment.end),
            text=segment.text,
            words=[_word(word) for word in segment.words],
            avg_logprob=segment.avg_logprob,
            no_speech_prob=segment.no_speech_prob,
            compression_ratio=segment.compression_ratio,
            temperature=segment.temperature,
            language_code=segment.language,
        )
        for index, segment in enumerate(segments)
    ]


def render_coverage(coverage: Coverage) -> pb.Coverage:
    """To the nanosecond: a sample is 62,500 of them, so that sums stay exact."""
    return pb.Coverage(
        speech_duration=_samples(coverage.speech),
        silence_duration=_samples(coverage.silence),
        gap_duration=_samples(sum(gap.length for gap in coverage.gaps)),
        gaps=[
            pb.TimeSpan(start_offset=_samples(gap.start), end_offset=_samples(gap.end))
            for gap in coverage.gaps
        ],
    )


def _samples(count: int) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(count * 1_000_000_000 // SAMPLE_RATE)
    return duration


def _word(word: Word) -> pb.WordInfo:
    return pb.WordInfo(
        start_offset=render_seconds(word.start),
        end_offset=render_seconds(word.end),
        word=word.word,
        confidence=word.probability,
    )


def render_seconds(seconds: float) -> Duration:
    """Seconds as a Duration, exact to a millisecond: models know no finer."""
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration
