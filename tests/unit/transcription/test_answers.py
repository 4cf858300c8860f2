"""What servers answer becomes segments, whatever they leave out; text is never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steno.transcript import Segment
from steno.transcription.answers import Answer, Unintelligible, error_message, parse_answer

DURATION = 8.0


def parsed(fields: Any, **arguments: Any) -> Answer:
    return parse_answer(json.dumps(fields).encode(), DURATION, **arguments)


def text_of(answer: Answer) -> str:
    return "".join(segment.text for segment in answer.segments)


def words_of(segment: Segment) -> list[tuple[float, float, str]]:
    return [(word.start, word.end, word.word) for word in segment.words]


OPENAI = {
    "task": "transcribe",
    "language": "english",
    "duration": "8.0",
    "text": "Hello, world. It's me.",
    "segments": [
        {
            "id": 0,
            "start": 0.5,
            "end": 2.0,
            "text": " Hello, world.",
            "avg_logprob": -0.25,
            "no_speech_prob": 0.125,
            "compression_ratio": 1.5,
            "temperature": 0.0,
        },
        {"id": 1, "start": 3.0, "end": 4.0, "text": " It's me."},
    ],
    "words": [
        {"word": "Hello", "start": 0.5, "end": 1.0},
        {"word": "world", "start": 1.2, "end": 2.0},
        {"word": "It's", "start": 3.0, "end": 3.5},
        {"word": "me", "start": 3.5, "end": 4.0},
    ],
}


def test_words_beside_the_segments_get_their_place_and_their_punctuation() -> None:
    answer = parsed(OPENAI)

    first, second = answer.segments
    assert answer.language == first.language == "en"
    assert (first.start, first.end, first.text) == (0.5, 2.0, " Hello, world.")
    assert words_of(first) == [(0.5, 1.0, " Hello,"), (1.2, 2.0, " world.")]
    assert words_of(second) == [(3.0, 3.5, " It's"), (3.5, 4.0, " me.")]
    assert (first.avg_logprob, first.no_speech_prob, first.compression_ratio) == (-0.25, 0.125, 1.5)


def test_words_inside_the_segments_are_the_same() -> None:
    first, second = OPENAI["segments"]
    words: Any = OPENAI["words"]
    inside = {
        **OPENAI,
        "segments": [{**first, "words": words[:2]}, {**second, "words": words[2:]}],  # type: ignore[dict-item]
        "words": None,
    }

    assert parsed(inside) == parsed(OPENAI)


def test_without_words_there_are_segments() -> None:
    answer = parsed({**OPENAI, "words": []})

    assert [segment.words for segment in answer.segments] == [(), ()]
    assert text_of(answer) == " Hello, world. It's me."


def test_words_that_nobody_asked_for_are_left_out() -> None:
    assert [segment.words for segment in parsed(OPENAI, words=False).segments] == [(), ()]


def test_text_alone_spans_the_audio() -> None:
    (segment,) = parsed({"text": "Hello, world."}).segments

    assert (segment.start, segment.end, segment.text) == (0.0, DURATION, " Hello, world.")


def test_plain_text_spans_the_audio() -> None:
    (segment,) = parse_answer(b"Hello, world.\n", DURATION, "en").segments

    assert (segment.start, segment.end, segment.text) == (0.0, DURATION, " Hello, world.")
    assert segment.language == "en"
    assert text_of(parse_answer(b"1984", DURATION)) == " 1984"


@pytest.mark.parametrize("times", [{}, {"start": None, "end": None}, {"start": "soon", "end": 2}])
def test_segments_without_times_are_one_that_spans_the_audio(times: dict[str, Any]) -> None:
    answer = parsed(
        {"segments": [{"start": 0, "end": 1, "text": "One."}, {"text": "Two.", **times}]}
    )

    (segment,) = answer.segments
    assert (segment.start, segment.end, segment.text) == (0.0, DURATION, " One. Two.")


def test_words_alone_give_segments() -> None:
    words = [
        {"word": "One", "start": 1, "end": 1.5},
        {"word": "Two", "start": 4, "end": 4.5},
    ]

    first, second = parsed({"text": "One. Two.", "words": words}).segments

    assert (first.start, first.end, first.text) == (1, 1.5, " One.")
    assert (second.start, second.end, second.text) == (4, 4.5, " Two.")


def test_numbers_may_come_as_text() -> None:
    segment = {"start": "0.50", "end": "2.00", "text": " Hello.", "avg_logprob": "-0.5"}

    (found,) = parsed({"text": "Hello.", "segments": [segment]}).segments

    assert (found.start, found.end, found.avg_logprob) == (0.5, 2.0, -0.5)


def test_no_offset_is_outside_the_audio() -> None:
    segments = [{"start": -1, "end": 30, "text": "Hello."}]
    words = [{"word": "Hello", "start": 7, "end": 12}]

    (found,) = parsed({"segments": segments, "words": words}).segments

    assert (found.start, found.end) == (0.0, DURATION)
    assert words_of(found) == [(7, DURATION, " Hello.")]


def test_parts_of_words_are_joined() -> None:
    tokens = [(" He", 0, 1), ("llo", 1, 2), (",", 2, 2), (" wor", 2, 3), ("ld", 3, 4), (".", 4, 4)]
    words = [{"word": text, "start": start, "end": end} for text, start, end in tokens]

    (found,) = parsed(
        {"segments": [{"start": 0, "end": 4, "text": " Hello, world.", "words": words}]}
    ).segments

    assert "".join(word.word for word in found.words) == found.text
    assert words_of(found)[0][:2] == (0, 2)
    assert {word.word.strip(" ,.") for word in found.words} >= {"Hello", "world"}


def test_a_script_without_spaces_gets_none() -> None:
    words = [{"word": "你好", "start": 0, "end": 1}, {"word": "世界", "start": 1, "end": 2}]

    (found,) = parsed(
        {
            "language": "chinese",
            "segments": [{"start": 0, "end": 2, "text": "你好世界。"}],
            "words": words,
        }
    ).segments

    assert found.text == "你好世界。"
    assert [word.word for word in found.words] == ["你好", "世界。"]
    assert found.language == "zh"


def test_words_that_the_text_has_in_another_form_lose_their_time_and_not_their_text() -> None:
    words = [
        {"word": "Chapter", "start": 0, "end": 1},
        {"word": "twenty", "start": 1, "end": 2},
        {"word": "begins", "start": 2, "end": 3},
    ]

    (found,) = parsed(
        {"segments": [{"start": 0, "end": 3, "text": "Chapter 20 begins."}], "words": words}
    ).segments

    assert words_of(found) == [(0, 1, " Chapter 20"), (2, 3, " begins.")]


@pytest.mark.parametrize(
    ("language", "code"),
    [("german", "de"), ("de", "de"), ("en-US", "en"), ("Haitian Creole", "ht"), ("elvish", "")],
)
def test_a_language_has_a_code(language: str, code: str) -> None:
    assert parsed({"text": "x", "language": language}).language == code


def test_the_language_that_was_asked_for_is_believed() -> None:
    assert parsed({"text": "x"}, language="fr").segments[0].language == "fr"


def test_nothing_said_is_no_segment() -> None:
    assert parsed({"text": "", "segments": []}).segments == ()
    assert parsed({"text": " ", "segments": [{"start": 0, "end": 1, "text": ""}]}).segments == ()
    assert parse_answer(b"", DURATION).segments == ()


def test_a_server_may_say_what_its_model_is() -> None:
    assert parsed({"text": "x", "model": "whisper-large-v3@abc"}).revision == "whisper-large-v3@abc"
    assert parsed({"text": "x"}).revision == ""


@pytest.mark.parametrize(
    "body", [b"<html>502</html>", b'{"text": ', b'{"error": "out of memory"}', b"\xff", b"[]"]
)
def test_what_is_no_transcript_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(Unintelligible):
        parse_answer(body, DURATION)


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "no such model", "code": 404}}',
        '{"error": "no such model"}',
        '{"detail": "no such model"}',
        '{"object": "error", "message": "no such model"}',
        "no such model\n",
    ],
)
def test_the_reason_of_an_error_is_found(body: str) -> None:
    assert error_message(body.encode()) == "no such model"


@pytest.mark.parametrize("bad", ["\ud83d", "\0"])
def test_text_of_a_server_can_be_sent_and_stored(bad: str) -> None:
    text = f"Hello{bad} you."
    words = [{"word": text, "start": 0, "end": 1}]
    whole = {"text": text, "words": words, "model": f"m{bad}"}
    parts = {"segments": [{"start": 0, "end": 1, "text": text, "words": words}]}
    for answer in (parsed(whole), parsed(parts), parsed(text)):
        said = [answer.revision, *(segment.text for segment in answer.segments)]
        said += [word.word for segment in answer.segments for word in segment.words]
        for each in (*said, error_message(json.dumps({"error": text}).encode())):
            each.encode()
            assert "\0" not in each
        assert text_of(answer).startswith(" Hello")


DEEP = 100_000


@pytest.mark.parametrize("body", ["[" * DEEP, '{"text":' * DEEP + "1" + "}" * DEEP])
def test_an_answer_that_is_nested_too_deep_can_not_be_read(body: str) -> None:
    with pytest.raises(Unintelligible):
        parsed_body(body)


def parsed_body(body: str) -> Answer:
    return parse_answer(body.encode(), DURATION)


def test_the_reason_of_an_error_is_found_however_deep_it_is_nested() -> None:
    for depth in (*range(200, 1100, 25), DEEP):
        assert error_message(f'{{"detail": {"[" * depth}{"]" * depth}}}'.encode())


def test_a_time_that_is_too_large_for_a_number_is_none() -> None:
    body = f'{{"segments": [{{"start": 0, "end": {"9" * 310}, "text": "Hello"}}]}}'

    (segment,) = parsed_body(body).segments

    assert (segment.start, segment.end, segment.text) == (0.0, DURATION, " Hello")
