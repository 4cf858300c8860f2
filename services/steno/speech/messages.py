"""Options, segments and coverage as messages of the contracts, and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from steno.platform.wellknown import duration_of, seconds_of
from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span, Word
from steno.v1 import transcript_pb2 as pb


def parse_language(language_code: str) -> str:
    """Reads the language that is asked for; empty: to be detected."""
    return "" if language_code == "auto" else language_code


def parse_options(config: pb.RecognitionConfig) -> Options:
    """Reads options. What is not set gets its default; the model's is known to who serves it."""
    return Options(
        model=config.model,
        language_code=parse_language(config.language_code),
        translate=config.task == pb.RECOGNITION_TASK_TRANSLATE,
        word_time_offsets=config.enable_word_time_offsets,
        hotwords=tuple(config.hotwords),
        prompt=config.prompt,
        vad_filter=config.vad_filter if config.HasField("vad_filter") else True,
        multilingual=config.multilingual,
        accurate=config.quality == pb.RECOGNITION_QUALITY_ACCURATE,
    )


def render_options(options: Options) -> pb.RecognitionConfig:
    """Renders options; nothing is left to a default."""
    return pb.RecognitionConfig(
        model=options.model,
        language_code=options.language_code,
        task=(
            pb.RECOGNITION_TASK_TRANSLATE if options.translate else pb.RECOGNITION_TASK_TRANSCRIBE
        ),
        enable_word_time_offsets=options.word_time_offsets,
        hotwords=options.hotwords,
        prompt=options.prompt,
        vad_filter=options.vad_filter,
        multilingual=options.multilingual,
        quality=(
            pb.RECOGNITION_QUALITY_ACCURATE if options.accurate else pb.RECOGNITION_QUALITY_FAST
        ),
    )


def parse_segment(segment: pb.Segment) -> Segment:
    """Reads a segment with its words."""
    return Segment(
        index=segment.index,
        start=seconds_of(segment.start_offset),
        end=seconds_of(segment.end_offset),
        text=segment.text,
        words=tuple(
            Word(
                start=seconds_of(word.start_offset),
                end=seconds_of(word.end_offset),
                word=word.word,
                probability=word.confidence,
            )
            for word in segment.words
        ),
        avg_logprob=segment.avg_logprob,
        no_speech_prob=segment.no_speech_prob,
        compression_ratio=segment.compression_ratio,
        temperature=segment.temperature,
        language=segment.language_code,
    )


def render_segment(segment: Segment) -> pb.Segment:
    """Renders a segment with its words."""
    return pb.Segment(
        index=segment.index,
        start_offset=duration_of(segment.start),
        end_offset=duration_of(segment.end),
        text=segment.text,
        words=[
            pb.WordInfo(
                start_offset=duration_of(word.start),
                end_offset=duration_of(word.end),
                word=word.word,
                confidence=word.probability,
            )
            for word in segment.words
        ],
        avg_logprob=segment.avg_logprob,
        no_speech_prob=segment.no_speech_prob,
        compression_ratio=segment.compression_ratio,
        temperature=segment.temperature,
        language_code=segment.language,
    )


def parse_coverage(coverage: pb.Coverage) -> Coverage:
    """Reads where every sample went."""
    return Coverage(
        speech=_samples_of(coverage.speech_duration),
        silence=_samples_of(coverage.silence_duration),
        gaps=tuple(
            Span(_samples_of(gap.start_offset), _samples_of(gap.end_offset))
            for gap in coverage.gaps
        ),
    )


def _samples_of(duration: Duration) -> int:
    return round(seconds_of(duration) * SAMPLE_RATE)


def render_coverage(coverage: Coverage) -> pb.Coverage:
    """Renders where every sample went."""
    rendered = render_sums(
        coverage.speech, coverage.silence, sum(gap.length for gap in coverage.gaps)
    )
    rendered.gaps.extend(
        render_span(gap.start / SAMPLE_RATE, gap.end / SAMPLE_RATE) for gap in coverage.gaps
    )
    return rendered


def render_sums(speech: int, silence: int, gap: int) -> pb.Coverage:
    """Renders how many samples went where, without the places of the gaps."""
    return pb.Coverage(
        speech_duration=duration_of(speech / SAMPLE_RATE),
        silence_duration=duration_of(silence / SAMPLE_RATE),
        gap_duration=duration_of(gap / SAMPLE_RATE),
    )


def render_span(start: float, end: float) -> pb.TimeSpan:
    """Renders a stretch of a recording, given in seconds."""
    return pb.TimeSpan(start_offset=duration_of(start), end_offset=duration_of(end))
