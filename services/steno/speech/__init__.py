"""Speech between the contracts and `steno.transcript`: options, segments, coverage, times.

A layer of its own, since several services and the `steno` command read and write the same messages.
Each option and each field of a segment stands here once in each direction (`messages`).

Times are rendered to the nanosecond, as fine as a Duration is. A sample at 16 kHz is 62,500 of
them, so whatever is a count of samples stays exact: the sums of a coverage, the end of a slice, the
place of a live window. Versions before this one rounded the times of words to a millisecond or a
microsecond; what they stored is read as it is.
"""

from steno.speech.messages import (
    parse_coverage,
    parse_language,
    parse_options,
    parse_segment,
    render_coverage,
    render_options,
    render_segment,
    render_span,
    render_sums,
)

__all__ = [
    "parse_coverage",
    "parse_language",
    "parse_options",
    "parse_segment",
    "render_coverage",
    "render_options",
    "render_segment",
    "render_span",
    "render_sums",
]
