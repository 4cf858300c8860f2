"""How slices become one recording again."""

from __future__ import annotations

from fractions import Fraction

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
