"""An option is honoured or refused, never changed."""

import pytest

from steno.transcript import Options, Segment
from steno.transcription.domain import (
    ServedModel,
    refusals,
    spoken_language,
)

ENGLISH = ServedModel("builtin", "r1", "int8", "cpu", ("en",))
MULTILINGUAL = ServedModel("large-v3", "r1", "float16", "cuda", ("en", "de", "fr"))


def refused(options: Options, model: ServedModel = MULTILINGUAL) -> list[str]:
    return [each.option for each in refusals(options, model)]


def test_a_plain_request_is_honoured() -> None:
    assert refused(Options()) == refused(Options(), ENGLISH) == []


def test_everything_that_a_multilingual_model_can_do_is_honoured() -> None:
    options = Options(
        language_code="de",
        translate=True,
        word_time_offsets=True,
        hotwords=("Ada",),
        prompt="Guten Tag.",
    )

    assert refused(options) == []
    assert refused(Options(multilingual=True)) == []


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (Options(language_code="de"), "language_code"),
        (Options(translate=True), "task"),
        (Options(multilingual=True), "multilingual"),
    ],
)
def test_an_english_model_refuses_what_needs_others(options: Options, option: str) -> None:
    assert refused(options, ENGLISH) == [option]


def test_a_language_that_the_model_does_not_know_is_refused() -> None:
    assert refused(Options(language_code="tlh")) == ["language_code"]


def test_a_fixed_language_contradicts_changing_languages() -> None:
    assert refused(Options(language_code="de", multilingual=True)) == ["language_code"]


def test_the_language_of_a_slice_is_the_one_of_its_options() -> None:
    assert (
        spoken_language(Options(language_code="de"), [Segment(0, 1, " hi", language="en")]) == "de"
    )
    assert spoken_language(Options(), []) == ""


def test_where_it_changes_the_language_spoken_longest_is_named() -> None:
    segments = [
        Segment(0, 2, " hello", language="en"),
        Segment(2, 7, " guten Tag", language="de"),
        Segment(7, 9, " hello", language="en"),
    ]

    assert spoken_language(Options(multilingual=True), segments) == "de"
    assert spoken_language(Options(multilingual=True), []) == ""
