"""Joining the slices of a recording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from steno.transcript.model import SAMPLE_RATE, Segment, SliceTranscript


def stitch(slices: Iterable[SliceTranscript], first_index: int = 0) -> list[Segment]:
    """Joins slice transcripts on the recording's own clock.

    Slices may arrive in any order and must not overlap. Each is placed by its own first sample, so
    that no error adds up over a long recording. What a model says to end after its slice (its
    windows are padded) ends with the slice: segments of two slices never overlap.

    Args:
        slices: what was found in each slice.
        first_index: index of the first segment.
    """
    in_order = sorted(slices, key=lambda s: s.start_sample)
    segments = (segment for each in in_order for segment in _placed(each))
    return [replace(segment, index=index) for index, segment in enumerate(segments, first_index)]


def _placed(piece: SliceTranscript) -> Iterable[Segment]:
    def on_clock(offset: float) -> float:
        sample = min(max(offset * SAMPLE_RATE, 0), piece.sample_count)
        return (piece.start_sample + sample) / SAMPLE_RATE

    for segment in piece.segments:
        yield replace(
            segment,
            start=on_clock(segment.start),
            end=on_clock(segment.end),
            words=tuple(
                replace(word, start=on_clock(word.start), end=on_clock(word.end))
                for word in segment.words
            ),
        )
