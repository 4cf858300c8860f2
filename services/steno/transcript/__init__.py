"""What was said: segments and words, joining slices, and the formats to write it in.

Pure: the standard library only, nothing is read or written.
"""

from steno.transcript.coverage import cover, join_coverage
from steno.transcript.model import (
    SAMPLE_RATE,
    Coverage,
    Model,
    Segment,
    SliceTranscript,
    Span,
    Transcript,
    Word,
)
from steno.transcript.render import CONTENT_TYPE, Format, render
from steno.transcript.stitch import stitch

__all__ = [
    "CONTENT_TYPE",
    "SAMPLE_RATE",
    "Coverage",
    "Format",
    "Model",
    "Segment",
    "SliceTranscript",
    "Span",
    "Transcript",
    "Word",
    "cover",
    "join_coverage",
    "render",
    "stitch",
]
