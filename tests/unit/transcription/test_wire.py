"""Options survive the way from a request into the domain and back into a transcript."""

import pytest

from steno.platform.errors import InvalidArgument
from steno.transcript import Segment, Word
from steno.transcription.domain import (
    ModelNotServed,
    Options,
    Refusal,
    ServedModel,
    refusals,
)
from steno.transcription.wire import parse_config, render_config, render_segments
from steno.v1 import transcript_pb2 as pb


class Engine:
    model = ServedModel("large-v3", "r1", "float16", "cuda", ("en", "de"))

    def refusals(self, options: Options) -> list[Refusal]:
        return refusals(options, self.model)


def parse(**config: object) -> Options:
    return parse_config(pb.RecognitionConfig(**config), Engine())  # type: ignore[arg-type]


def test_what_is_not_said_has_a_default() -> None:
    assert parse() == Options(language="", vad_filter=True)
    assert parse(language_code="auto") == Options()


def test_every_option_is_read_and_written_again() -> None:
    config = pb.RecognitionConfig(
        model="large-v3",
        language_code="de",
        task=pb.RECOGNITION_TASK_TRANSLATE,
        enable_word_time_offsets=True,
        hotwords=["Ada", "Zuse"],
        prompt="Guten Tag.",
        vad_filter=False,
        quality=pb.RECOGNITION_QUALITY_ACCURATE,
    )

    assert render_config(parse_config(config, Engine()), Engine.model) == config  # type: ignore[arg-type]


def test_another_model_is_not_served() -> None:
    with pytest.raises(ModelNotServed):
        parse(model="tiny")


def test_a_refused_option_is_named_as_it_stands_in_the_request() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(language_code="xx")

    assert [violation.field for violation in caught.value.violations] == ["config.language_code"]


def test_segments_are_numbered_and_keep_their_times() -> None:
    word = Word(1.04, 1.3, " Hello", 0.5)
    segments = [Segment(0.5, 1, " Yes."), Segment(1, 2.345, " Hello", words=(word,))]

    first, second = render_segments(segments)

    assert (first.index, second.index) == (0, 1)
    assert second.end_offset.ToTimedelta().total_seconds() == 2.345
    assert second.words[0].word == " Hello"
    assert second.words[0].start_offset.ToTimedelta().total_seconds() == 1.04
    assert second.words[0].confidence == 0.5
