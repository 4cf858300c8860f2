"""Speech with text + silence + gaps = duration."""

from dataclasses import replace

import pytest

from steno.transcript import Coverage, Segment, SliceTranscript, Span, cover, join_coverage

SECOND = 16_000


def span(start: float, end: float) -> Span:
    return Span(round(start * SECOND), round(end * SECOND))


def text(start: float, end: float) -> Segment:
    return Segment(start, end, " Hello.")


def doubted(start: float, end: float) -> Segment:
    return replace(text(start, end), no_speech_prob=0.7, avg_logprob=-1.2)


@pytest.mark.parametrize(
    ("spoken", "segments", "gaps"),
    [
        pytest.param([span(2, 8)], [text(2, 8)], [], id="all of it gave text"),
        pytest.param([span(2, 8)], [], [span(2, 8)], id="none of it did"),
        pytest.param([span(2, 8)], [text(1, 4)], [span(4, 8)], id="the end did not"),
        pytest.param([span(2, 8)], [text(4, 9)], [span(2, 4)], id="the start did not"),
        pytest.param([span(2, 8)], [text(2, 4), text(6, 8)], [span(4, 6)], id="the middle did not"),
        pytest.param([span(2, 8)], [text(2.5, 7.2)], [], id="segments are not that exact"),
        pytest.param([span(2, 8)], [text(5, 8), text(2, 6)], [], id="segments overlap, unordered"),
        pytest.param(
            [span(1, 3), span(5, 9)], [text(1, 3)], [span(5, 9)], id="one of two stretches did not"
        ),
        pytest.param([], [text(2, 8)], [], id="text where nobody speaks"),
        pytest.param([span(2, 8)], [doubted(2, 8)], [span(2, 8)], id="its text was dropped"),
    ],
)
def test_speech_that_no_segment_covers_is_a_gap(
    spoken: list[Span], segments: list[Segment], gaps: list[Span]
) -> None:
    coverage = cover(Span(0, 10 * SECOND), spoken, segments)

    assert list(coverage.gaps) == gaps
    assert coverage.silence == 10 * SECOND - sum(each.length for each in spoken)
    assert coverage.speech + coverage.silence + sum(g.length for g in gaps) == 10 * SECOND


def test_only_what_lies_within_is_asked_about() -> None:
    spoken = [span(0, 4), span(5, 6), span(7, 9)]

    coverage = cover(span(2, 8), spoken, [text(0, 4), text(5, 6)])

    assert coverage == Coverage(3 * SECOND, 2 * SECOND, (span(7, 8),))
    assert coverage.moved(-2 * SECOND).gaps == (span(5, 6),)


def test_audio_that_never_came_is_a_gap_and_no_silence() -> None:
    heard = Coverage(4 * SECOND, 6 * SECOND, (span(0, 1),))

    found = heard.without([span(3, 5), span(5, 6)])

    assert found == Coverage(4 * SECOND, 3 * SECOND, (span(0, 1), span(3, 6)))


def test_a_gap_may_begin_before_speech_seems_to_end() -> None:
    assert Coverage(4 * SECOND, SECOND, ()).without([span(3, 5)]) == Coverage(
        3 * SECOND, 0, (span(3, 5),)
    )


def test_coverage_is_joined_on_the_recordings_clock() -> None:
    pieces = [
        SliceTranscript(10 * SECOND, 5 * SECOND, (), Coverage(0, 3 * SECOND, (span(0, 2),))),
        SliceTranscript(0, 10 * SECOND, (), Coverage(8 * SECOND, 0, (span(8, 10),))),
        SliceTranscript(15 * SECOND, 4 * SECOND, ()),
    ]

    joined = join_coverage(pieces)

    assert joined == Coverage(12 * SECOND, 3 * SECOND, (span(8, 12),))


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "dropped"),
    [(0.7, -1.2, True), (0.7, -0.4, False), (0.3, -1.2, False), (0.6, -1.2, False)],
)
def test_only_text_that_is_unlikely_where_probably_nobody_spoke_is_dropped(
    no_speech_prob: float, avg_logprob: float, dropped: bool
) -> None:
    found = replace(text(0, 1), no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)

    assert found.is_dropped is dropped
