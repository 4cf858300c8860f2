"""Where every second of a recording went: speech with text + silence + gaps = duration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steno.transcript.model import SAMPLE_RATE, Coverage, Segment, SliceTranscript, Span, merge

LEAST_GAP = SAMPLE_RATE
"""Samples of speech without text that make a gap. Segments are not told finer than that, and what
is shorter is a breath."""


def cover(within: Span, spoken: Iterable[Span], segments: Iterable[Segment]) -> Coverage:
    """Compares speech with the text that was found in it.

    Args:
        within: the audio that is asked about; what lies beyond it does not count.
        spoken: where somebody speaks; spans that do not overlap, in order.
        segments: what was found; in any order. Those that are dropped are no text.
    """
    said = sorted(
        (round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE))
        for segment in segments
        if not segment.is_dropped
    )
    gaps: list[Span] = []
    speech = 0
    for each in spoken:
        span = Span(max(each.start, within.start), min(each.end, within.end))
        if span.length <= 0:
            continue
        speech += span.length
        at = span.start
        for start, end in [*said, (span.end, span.end)]:
            until = min(start, span.end)
            if until - at >= LEAST_GAP:
                gaps.append(Span(at, until))
                speech -= until - at
            at = max(at, end)
    silence = within.length - speech - sum(gap.length for gap in gaps)
    return Coverage(speech, silence, tuple(gaps))


def join_coverage(slices: Sequence[SliceTranscript]) -> Coverage:
    """Joins the coverage of slices on the recording's own clock.

    A slice of which nothing is known counts as speech.
    """
    speech = silence = 0
    gaps: list[Span] = []
    for piece in slices:
        found = piece.coverage or Coverage(piece.sample_count, 0, ())
        speech += found.speech
        silence += found.silence
        gaps += found.moved(piece.start_sample).gaps
    return Coverage(speech, silence, merge(gaps))  # a slice's border may have cut one in two
