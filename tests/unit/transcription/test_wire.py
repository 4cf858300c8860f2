"""What the model can honour is read from a request, and what it found is told."""

import pytest

from steno.platform.errors import InvalidArgument
from steno.transcript import Options, Segment
from steno.transcription.domain import ModelNotServed, Refusal, ServedModel, refusals
from steno.transcription.wire import parse_config, render_found
from steno.v1 import transcript_pb2 as pb


class Engine:
    model = ServedModel("large-v3", "r1", "float16", "cuda", ("en", "de"))

    def refusals(self, options: Options) -> list[Refusal]:
        return refusals(options, self.model)


def parse(**config: object) -> Options:
    return parse_config(pb.RecognitionConfig(**config), Engine())  # type: ignore[arg-type]


def test_options_that_were_honoured_name_the_model() -> None:
    assert parse() == Options("large-v3")
    assert parse(model="large-v3", language_code="de") == Options("large-v3", language_code="de")


def test_another_model_is_not_served() -> None:
    with pytest.raises(ModelNotServed):
        parse(model="tiny")


def test_a_refused_option_is_named_as_it_stands_in_the_request() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(language_code="xx")

    assert [violation.field for violation in caught.value.violations] == ["config.language_code"]


def test_segments_that_are_kept_and_those_that_are_dropped_are_numbered_by_themselves() -> None:
    dropped = Segment(0.5, 1, " Thanks.", no_speech_prob=0.9, avg_logprob=-1.5)
    segments = [Segment(0, 0.5, " Yes."), dropped, Segment(1, 2.345, " No."), dropped]

    kept, left = render_found(segments)

    assert [(each.index, each.text) for each in kept] == [(0, " Yes."), (1, " No.")]
    assert [(each.index, each.text) for each in left] == [(0, " Thanks."), (1, " Thanks.")]
