"""How speech is cut into windows, and how their words become segments."""

from __future__ import annotations

import pytest

from steno.models import Windows
from steno.transcript import SAMPLE_RATE, Span, Word
from steno.transcription.windows import cut, longest, sentences, window_seconds, without_echoes

SHORT = Windows(speech_seconds=20, margin_seconds=2, least_seconds=8)


def spans(*seconds: tuple[float, float]) -> list[Span]:
    return [Span(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in seconds]


def words(*told: tuple[str, float, float]) -> list[Word]:
    return [Word(start, end, word, 0.9) for word, start, end in told]


@pytest.mark.parametrize(
    ("speech", "window"), [(0.5, 8), (6, 8), (6.1, 10), (17.9, 20), (20, 22), (29, 30)]
)
def test_a_window_is_as_long_as_its_speech_and_a_margin(speech: float, window: int) -> None:
    assert window_seconds(SHORT, int(speech * SAMPLE_RATE)) == window


def test_speech_is_joined_across_pauses_as_long_as_it_fits() -> None:
    spoken = spans((0, 4), (5, 12), (12.5, 19), (20, 24))

    assert cut(spoken, 20 * SAMPLE_RATE) == spans((0, 19), (20, 24))


def test_a_window_ends_at_the_longest_pause_of_its_second_half() -> None:
    spoken = spans((0, 2), (5, 11), (12, 14), (14.3, 19), (19.4, 21))

    assert cut(spoken, 20 * SAMPLE_RATE) == spans((0, 11), (12, 21))


def test_a_long_pause_ends_a_window() -> None:
    assert cut(spans((0, 4), (8, 9)), 20 * SAMPLE_RATE) == spans((0, 4), (8, 9))


def test_without_speech_there_is_no_window() -> None:
    assert cut([], 20 * SAMPLE_RATE) == []


def test_what_is_written_twice_and_heard_once_is_told_once() -> None:
    heard = words((" So", 1.0, 1.2), (" it", 1.2, 1.4), (" is.", 1.4, 1.9))
    echo = words((" So", 1.9, 1.9), (" it", 1.9, 1.9), (" is", 1.9, 1.9), (" so.", 1.9, 1.9))

    assert without_echoes([*heard, *echo]) == heard


def test_a_few_words_in_no_time_are_spoken_quickly() -> None:
    quick = words((" I", 1.0, 1.0), (" do", 1.0, 1.02), (" not", 1.02, 1.3))

    assert without_echoes(quick) == quick


def test_of_a_number_each_digit_takes_its_time() -> None:
    assert longest(" 3829.") > longest(" house") + 1


def test_a_segment_ends_with_a_sentence_or_before_a_pause() -> None:
    told = words(
        (" Stop.", 0.0, 0.4), (" Mr.", 0.5, 0.7), (" Ray", 0.7, 0.9), (" now", 1.5, 1.7)
    )  # fmt: skip

    assert ["".join(word.word for word in each) for each in sentences(told)] == [
        " Stop.", " Mr. Ray", " now",
    ]  # fmt: skip


def test_without_words_there_is_no_segment() -> None:
    assert [*sentences([])] == []
