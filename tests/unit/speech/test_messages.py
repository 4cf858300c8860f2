"""Options, segments and coverage survive the way into a message and back, to the sample."""

from __future__ import annotations

import dataclasses

import pytest
from google.protobuf.duration_pb2 import Duration

from steno.speech import (
    parse_coverage,
    parse_options,
    parse_segment,
    render_coverage,
    render_options,
    render_segment,
)
from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span, Word
from steno.v1 import transcript_pb2 as pb

ALL = Options(
    model="large-v3",
    language_code="de",
    translate=True,
    word_time_offsets=True,
    hotwords=("Ada", "Zuse"),
    prompt="Guten Tag.",
    vad_filter=False,
    multilingual=True,
    accurate=True,
)
SAID = Segment(
    start=1.04,
    end=61.2345625,
    text=" Hello",
    words=(Word(1.04, 61.2345625, " Hello", 0.5),),
    avg_logprob=-0.25,
    no_speech_prob=0.125,
    compression_ratio=1.5,
    temperature=0.5,
    language="en",
    index=7,
)
UNFILLED = {"channel_tag", "speaker_label"}
"""Fields of the contract that nothing fills yet."""


def test_what_is_not_set_has_a_default() -> None:
    assert parse_options(pb.RecognitionConfig()) == Options()
    assert parse_options(pb.RecognitionConfig(language_code="auto")) == Options()


def test_every_option_is_read_and_written() -> None:
    rendered = render_options(ALL)

    assert {field.name for field, _ in rendered.ListFields()} == set(
        pb.RecognitionConfig.DESCRIPTOR.fields_by_name
    )
    assert parse_options(rendered) == ALL
    usual = Options()
    untouched = [
        f.name for f in dataclasses.fields(ALL) if getattr(ALL, f.name) == getattr(usual, f.name)
    ]
    assert untouched == ["newer"]


def test_options_are_rendered_without_leaving_any_to_a_default() -> None:
    rendered = render_options(Options())

    assert rendered.HasField("vad_filter")
    assert (rendered.task, rendered.quality) == (
        pb.RECOGNITION_TASK_TRANSCRIBE,
        pb.RECOGNITION_QUALITY_FAST,
    )
    assert parse_options(rendered) == Options()


def test_every_field_of_a_segment_is_read_and_written() -> None:
    rendered = render_segment(SAID)

    for message in (rendered, rendered.words[0]):
        unset = set(message.DESCRIPTOR.fields_by_name) - {f.name for f, _ in message.ListFields()}
        assert unset <= UNFILLED
    assert parse_segment(rendered) == SAID


@pytest.mark.parametrize("hours", [0, 1, 24])
def test_times_and_coverage_are_exact_to_the_sample(hours: int) -> None:
    start = hours * 3600 * SAMPLE_RATE
    for sample in range(start + 1, start + 1000, 7):
        at = sample / SAMPLE_RATE
        found = Coverage(sample, 2 * sample, (Span(sample, sample + 1),))

        assert render_segment(Segment(at, at, "")).end_offset.ToNanoseconds() == sample * 62_500
        assert parse_segment(render_segment(Segment(-at, at, ""))) == Segment(-at, at, "")
        assert parse_coverage(render_coverage(found)) == found


def test_the_parts_of_a_coverage_add_up_to_the_nanosecond() -> None:
    rendered = render_coverage(Coverage(speech=1, silence=3, gaps=(Span(0, 5), Span(9, 11))))

    parts = (rendered.speech_duration, rendered.silence_duration, rendered.gap_duration)
    assert sum(part.ToNanoseconds() for part in parts) == 11 * 62_500


def test_what_the_arithmetic_of_floats_adds_is_not_rendered() -> None:
    assert render_segment(Segment(0.1 + 0.2, 0.3, "")).start_offset == Duration(nanos=300_000_000)


@pytest.mark.parametrize("nanos", [235_000_000, 234_563_000, 234_562_500])
def test_times_that_older_versions_rounded_are_read(nanos: int) -> None:
    stored = pb.Segment(
        end_offset=Duration(seconds=61, nanos=nanos),
        words=[pb.WordInfo(start_offset=Duration(seconds=-1, nanos=-nanos))],
    ).SerializeToString()

    segment = parse_segment(pb.Segment.FromString(stored))

    assert segment.end == pytest.approx(61 + nanos / 1e9, abs=1e-12)
    assert segment.words[0].start == pytest.approx(-1 - nanos / 1e9, abs=1e-12)
