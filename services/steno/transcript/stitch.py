"""Joining the slices of a recording.

Where nobody pauses, a recording is cut in the midst of speech, maybe of a word, and both slices are
transcribed beyond the cut. A word then belongs to the slice in which its middle lies, as the slice
before the cut heard it. The slice after it heard the last words before the cut too, at times that
differ a little: by the words that both heard it finds the first one that nobody has told. So it
also tells what the slice before left out at its end; that one's coverage still calls it a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from steno.transcript.model import SAMPLE_RATE, Segment, SliceTranscript, Word

SAME_WORD_SECONDS = 0.5
"""How far apart two slices hear the middle of the same word at most."""

LONGEST_WORD_SECONDS = 1.0
"""What a word lasts at most beside a cut: one before speech that gave no text is drawn out over all
of it."""


def stitch(
    slices: Iterable[SliceTranscript],
    first_index: int = 0,
    *,
    before: SliceTranscript | None = None,
    words: bool = True,
) -> list[Segment]:
    """Joins slice transcripts on the recording's own clock.

    Slices may arrive in any order and must not overlap. Each is placed by its own first sample, so
    that no error adds up over a long recording. What a model says to end after its slice (its
    windows are padded) ends with the slice: segments of two slices never overlap.

    Args:
        slices: what was found in each slice.
        first_index: index of the first segment.
        before: the slice before the first one, whose segments are told already.
        words: leave the words in the segments.
    """
    segments: list[Segment] = []
    before = before and _without_drawn_out_words(before)
    for piece in sorted(slices, key=lambda each: each.start_sample):
        piece = _without_drawn_out_words(piece)
        segments += _own(piece, before)
        before = piece
    return [
        replace(segment, index=index, words=segment.words if words else ())
        for index, segment in enumerate(segments, first_index)
    ]


def _placed(piece: SliceTranscript, segments: Iterable[Segment], begin: float) -> Iterable[Segment]:
    """On the recording's clock; nothing begins before a moment there, or ends after the slice."""

    def on_clock(offset: float) -> float:
        sample = piece.start_sample + min(offset * SAMPLE_RATE, piece.sample_count)
        return max(sample / SAMPLE_RATE, begin)

    return (segment.retimed(on_clock) for segment in segments)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A word of a slice, or a segment without words, on the recording's clock."""

    text: str
    middle: float
    end: float

    @property
    def plain(self) -> str:
        """Without case and punctuation, which depend on what is heard around it."""
        letters = "".join(letter for letter in self.text if letter.isalnum())
        return letters.casefold() or self.text


def _own(piece: SliceTranscript, before: SliceTranscript | None) -> Iterable[Segment]:
    """The segments of a slice without what is told by its neighbours, on the recording's clock."""
    begin = piece.start_sample / SAMPLE_RATE
    if not piece.left_context and not piece.right_context:
        return _placed(piece, piece.segments, begin)
    heard = _heard(piece)
    first, last = 0, len(heard)
    if piece.left_context:
        begin, first = _first_untold(heard, begin, before)
    if piece.right_context:
        last = _told_until(heard, piece.end_sample / SAMPLE_RATE)
    return _placed(piece, _between(piece.segments, first, last), begin)


def _without_drawn_out_words(piece: SliceTranscript) -> SliceTranscript:
    if not piece.left_context and not piece.right_context:
        return piece

    def plain(segment: Segment) -> Segment:
        words = tuple(
            replace(word, end=min(word.end, word.start + LONGEST_WORD_SECONDS))
            for word in segment.words
        )
        return replace(segment, words=words, end=words[-1].end if words else segment.end)

    return replace(piece, segments=tuple(map(plain, piece.segments)))


def _heard(piece: SliceTranscript) -> list[_Heard]:
    start = piece.start_sample / SAMPLE_RATE
    return [
        _Heard(word.word, start + (word.start + word.end) / 2, start + word.end)
        for segment in piece.segments
        for word in _words(segment)
    ]


def _words(segment: Segment) -> Sequence[Word]:
    return segment.words or [Word(segment.start, segment.end, segment.text, 0.0)]


def _told_until(heard: Sequence[_Heard], cut: float) -> int:
    """Index of the first word whose middle does not lie before the cut, in seconds."""
    return next((n for n, word in enumerate(heard) if word.middle >= cut), len(heard))


def _first_untold(
    heard: Sequence[_Heard], cut: float, before: SliceTranscript | None
) -> tuple[float, int]:
    """Until when the slice before has told, in seconds, and the first word that it has not."""
    others = _heard(before) if before else []
    told = _told_until(others, cut)
    if before is None or not told:
        return cut, _told_until(heard, cut)
    # It may have told nothing of the last seconds before the cut.
    until = min(cut, others[told - 1].end)
    first = _told_until(heard, until)
    reach = before.right_context / SAMPLE_RATE
    for there, here in _pairs(others, heard, cut - reach, cut + reach):
        if there == told - 1:
            return until, here + 1
        if there >= told:
            return until, min(first, here)
        first = max(first, here + 1)
    return until, first


def _pairs(
    left: Sequence[_Heard], right: Sequence[_Heard], begin: float, end: float
) -> Iterable[tuple[int, int]]:
    """Indices of the words that both heard between two moments, in order."""

    def nearest(word: _Heard, others: Sequence[_Heard], candidates: Sequence[int]) -> int | None:
        same = [n for n in candidates if others[n].plain == word.plain]
        found = min(same, key=lambda n: abs(others[n].middle - word.middle), default=None)
        if found is None or abs(others[found].middle - word.middle) > SAME_WORD_SECONDS:
            return None
        return found

    there = [n for n, word in enumerate(left) if begin <= word.middle <= end]
    here = [n for n, word in enumerate(right) if begin <= word.middle <= end]
    for n in here:
        partner = nearest(right[n], left, there)
        if partner is not None and nearest(left[partner], right, here) == n:
            yield partner, n


def _between(segments: Iterable[Segment], first: int, last: int) -> Iterable[Segment]:
    """Segments of the words from index `first` on and before `last`."""
    index = 0
    for segment in segments:
        words = _words(segment)
        kept = words[max(0, first - index) : max(0, last - index)]
        index += len(words)
        if len(kept) == len(words):
            yield segment
        elif kept:
            yield replace(
                segment,
                start=kept[0].start if kept[0] is not words[0] else segment.start,
                end=kept[-1].end if kept[-1] is not words[-1] else segment.end,
                text="".join(word.word for word in kept),
                words=tuple(kept),
            )
