"""How a transcript is written in each format."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from steno.transcript import FORMATS, Model, Options, Segment, Transcript, Word
from steno.v1.job_pb2 import TranscriptFormat

HELLO = Segment(
    index=0,
    start=0.5,
    end=2.04,
    text=" Hello there.",
    words=(Word(0.5, 0.9, " Hello", 0.98765432), Word(1.0, 2.04, " there.", 0.5)),
    avg_logprob=-0.25,
    no_speech_prob=0.015625,
    compression_ratio=1.125,
)
GOODBYE = Segment(index=1, start=3599.9996, end=360_000.0, text=" Good bye.")


def transcript(*segments: Segment) -> Transcript:
    return Transcript(
        segments=segments,
        language="en",
        duration=360_001.5,
        model=Model("builtin", "0123abcd", "int8"),
        options=Options("builtin", language_code="en", hotwords=("Steno",), accurate=True),
    )


def written(what: Transcript, target: str) -> str:
    return FORMATS[target].write(what)


TWO = transcript(HELLO, GOODBYE)

GOLDEN = {
    "txt": "Hello there.\nGood bye.\n",
    "srt": (
        "1\n00:00:00,500 --> 00:00:02,040\nHello there.\n"
        "\n"
        "2\n01:00:00,000 --> 100:00:00,000\nGood bye.\n"
    ),
    "vtt": (
        "WEBVTT\n"
        "\n00:00:00.500 --> 00:00:02.040\nHello there.\n"
        "\n01:00:00.000 --> 100:00:00.000\nGood bye.\n"
    ),
    "tsv": "start\tend\ttext\n500\t2040\tHello there.\n3600000\t360000000\tGood bye.\n",
}


def test_the_formats_are_those_of_the_contract() -> None:
    names = {
        name.removeprefix("TRANSCRIPT_FORMAT_").lower()
        for name in TranscriptFormat.DESCRIPTOR.values_by_name
    }

    assert set(FORMATS) == names - {"unspecified"}


@pytest.mark.parametrize("target", GOLDEN)
def test_a_transcript_is_written_as_the_golden_text(target: str) -> None:
    assert written(TWO, target) == GOLDEN[target]


def test_json_has_the_fields_that_the_manual_names_in_seconds() -> None:
    assert json.loads(written(TWO, "json")) == {
        "text": "Hello there. Good bye.",
        "language": "en",
        "duration": 360001.5,
        "truncated": False,
        "model": {"name": "builtin", "revision": "0123abcd", "compute_type": "int8"},
        "options": {
            "language": "en",
            "task": "transcribe",
            "word_timestamps": False,
            "hotwords": ["Steno"],
            "prompt": "",
            "vad_filter": True,
            "multilingual": False,
            "condition_on_previous_text": True,
        },
        "segments": [
            {
                "id": 0,
                "start": 0.5,
                "end": 2.04,
                "text": " Hello there.",
                "avg_logprob": -0.25,
                "no_speech_prob": 0.0156,
                "compression_ratio": 1.125,
                "words": [
                    {"word": " Hello", "start": 0.5, "end": 0.9, "probability": 0.9877},
                    {"word": " there.", "start": 1.0, "end": 2.04, "probability": 0.5},
                ],
            },
            {
                "id": 1,
                "start": 3600.0,
                "end": 360000.0,
                "text": " Good bye.",
                "avg_logprob": 0.0,
                "no_speech_prob": 0.0,
                "compression_ratio": 0.0,
                "words": [],
            },
        ],
    }


def test_json_keeps_letters_of_every_script_readable() -> None:
    assert "Grüße, 世界" in written(transcript(Segment(0, 1, " Grüße, 世界")), "json")


def test_vtt_escapes_what_would_be_markup_or_the_head_of_a_cue() -> None:
    text = written(transcript(Segment(0, 1, " a --> b & <c>")), "vtt")

    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na --&gt; b &amp; &lt;c&gt;\n"


def test_srt_shortens_an_arrow_because_it_has_no_escapes() -> None:
    text = written(transcript(Segment(0, 1, " a --> b")), "srt")

    assert text.count("-->") == 1
    assert "a -> b" in text


@pytest.mark.parametrize("target", ["txt", "srt", "vtt", "tsv"])
def test_line_breaks_and_tabs_in_the_text_become_spaces(target: str) -> None:
    text = written(transcript(Segment(0, 1, " one\ttwo\n\nthree\r\n4\u2028five")), target)

    assert "one two three 4 five\n" in text


def test_a_long_line_is_not_split() -> None:
    sentence = " ".join(["word"] * 500)

    assert f"\n{sentence}\n" in written(transcript(Segment(0, 1, sentence)), "srt")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("txt", ""),
        ("srt", ""),
        ("vtt", "WEBVTT\n"),
        ("tsv", "start\tend\ttext\n"),
    ],
)
def test_silence_gives_a_valid_empty_document(target: str, expected: str) -> None:
    assert written(transcript(), target) == expected


def test_text_of_languages_without_spaces_is_joined_without_spaces() -> None:
    assert transcript(Segment(0, 1, "你好"), Segment(1, 2, "世界")).text == "你好世界"


def test_json_has_none_in_the_place_of_what_is_no_number() -> None:
    unsure = replace(HELLO, avg_logprob=math.nan, compression_ratio=math.inf)

    document = json.loads(written(transcript(unsure), "json"), parse_constant=pytest.fail)

    (segment,) = document["segments"]
    assert segment["avg_logprob"] is None
    assert segment["compression_ratio"] is None
    assert segment["no_speech_prob"] == 0.0156
