"""How slices become one recording again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import pytest

from steno.transcript import SAMPLE_RATE, Segment, SliceTranscript, Word, stitch


def a_slice(start_sample: int, *segments: Segment, sample_count: int = 480_000) -> SliceTranscript:
    return SliceTranscript(start_sample, sample_count, segments)


def test_offsets_count_from_the_start_of_the_recording() -> None:
    word = Word(1.5, 2.0, " word", 0.9)

    [segment] = stitch([a_slice(720_000, Segment(1.25, 2.5, " word", words=(word,)))])

    assert (segment.start, segment.end) == (46.25, 47.5)
    assert (segment.words[0].start, segment.words[0].end) == (46.5, 47.0)


def test_slices_may_arrive_in_any_order() -> None:
    first, second = a_slice(0, Segment(0, 1, " one")), a_slice(480_000, Segment(0, 1, " two"))

    assert [s.text for s in stitch([second, first])] == [" one", " two"]


def test_segments_are_numbered_through_from_the_given_index() -> None:
    slices = [
        a_slice(0, Segment(0, 1, " one"), Segment(1, 2, " two")),
        a_slice(480_000),
        a_slice(960_000, Segment(0, 1, " three")),
    ]

    assert [s.index for s in stitch(slices, first_index=7)] == [7, 8, 9]


def test_no_error_adds_up_over_a_hundred_hours() -> None:
    # 100 hours in slices whose length is no whole number of milliseconds.
    length = 479_999
    count = 100 * 3600 * SAMPLE_RATE // length
    slices = [a_slice(n * length, Segment(0.1, 0.2, " x")) for n in range(count)]

    last = stitch(slices)[-1]

    exact = Fraction((count - 1) * length, SAMPLE_RATE) + Fraction(1, 10)
    assert abs(last.start - exact) < 1e-9


def test_what_ends_after_its_slice_ends_with_it() -> None:
    word = Word(29.0, 31.5, " late", 0.5)
    slices = [
        a_slice(0, Segment(28.0, 32.0, " late", words=(word,))),
        a_slice(480_000, Segment(0, 1, " next")),
    ]

    late, following = stitch(slices)

    assert late.end == late.words[0].end == 30.0 == following.start


CUT = 30.0
CONTEXT = 3 * SAMPLE_RATE


def spoken(words: str, at: float, step: float = 0.4) -> Segment:
    """Words of 0.4 s, one after the other."""
    found = [
        Word(at + n * step, at + (n + 1) * step, f" {word}", 0.9)
        for n, word in enumerate(words.split())
    ]
    return Segment(at, found[-1].end, f" {words}", words=tuple(found))


def left_of_the_cut(*segments: Segment) -> SliceTranscript:
    return replace(a_slice(0, *segments), right_context=CONTEXT)


def right_of_the_cut(*segments: Segment) -> SliceTranscript:
    return replace(a_slice(480_000, *segments), left_context=CONTEXT)


def text(segments: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in segments)


SENTENCE = "when the train has stopped we are going to walk home"


@pytest.mark.parametrize("lateness", [-0.25, -0.1, 0.0, 0.1, 0.25])
@pytest.mark.parametrize("into_word", [0.0, 0.1, 0.19, 0.2, 0.21, 0.3])
def test_a_cut_in_speech_loses_no_word_and_doubles_none(lateness: float, into_word: float) -> None:
    start = CUT - 4 * 0.4 - into_word  # the cut falls into the fifth word
    left = left_of_the_cut(spoken(SENTENCE, start))
    right = right_of_the_cut(spoken(SENTENCE, start - CUT + lateness))

    segments = stitch([left, right])

    assert text(segments) == f" {SENTENCE}"
    assert segments[0].end <= segments[1].start < segments[1].end
    assert stitch([right], 1, before=left) == segments[1:]


def test_a_word_said_twice_at_the_cut_stays_there_twice() -> None:
    left = left_of_the_cut(spoken("a very very", CUT - 1.0), spoken("good day", CUT + 0.3))
    right = right_of_the_cut(spoken("very good day", -0.15))

    assert text(stitch([left, right])) == " a very very good day"


def test_where_both_heard_something_else_the_cut_decides() -> None:
    left = left_of_the_cut(spoken("one two three four", CUT - 0.8))
    right = right_of_the_cut(spoken("five six seven eight", -0.8))

    assert text(stitch([left, right])) == " one two seven eight"


def test_case_and_punctuation_make_no_other_word() -> None:
    left = left_of_the_cut(spoken("and then stopped, he", CUT - 1.1))
    right = right_of_the_cut(spoken("Then stopped he went", -0.55))

    assert text(stitch([left, right])) == " and then stopped, he went"


def test_after_a_slice_that_was_left_out_the_cut_decides() -> None:
    left_out = a_slice(0)
    right = right_of_the_cut(spoken("one two three four", -0.8))

    assert text(stitch([left_out, right])) == text(stitch([right])) == " three four"


def test_a_slice_that_gave_nothing_takes_nothing_from_its_neighbours() -> None:
    right = right_of_the_cut(spoken("one two three four", -0.8))

    assert text(stitch([left_of_the_cut(), right])) == " three four"


def test_what_the_slice_before_left_out_at_its_end_is_not_lost() -> None:
    drawn_out = Word(CUT - 1.6, CUT + 0.1, " two", 0.9)
    told = Segment(
        CUT - 2, CUT + 0.1, " one two", (Word(CUT - 2, CUT - 1.6, " one", 0.9), drawn_out)
    )
    left = left_of_the_cut(told, spoken("six", CUT + 0.1))
    right = right_of_the_cut(spoken("two three four five six", -1.6))

    first, second = stitch([left, right])

    assert first.text + second.text == " one two three four five six"
    assert first.end <= second.start < CUT < second.end


def test_segments_without_words_are_told_whole_by_one_of_both() -> None:
    sentence = Segment(CUT - 2, CUT + 1, " one two three")
    left = left_of_the_cut(sentence)
    right = right_of_the_cut(replace(sentence, start=-2.1, end=1.0), Segment(1, 2, " four"))

    assert text(stitch([left, right])) == " one two three four"


def test_words_are_left_out_where_nobody_asked_for_them() -> None:
    [segment] = stitch([a_slice(0, spoken("one two", 1.0))], words=False)

    assert (segment.text, segment.words) == (" one two", ())
