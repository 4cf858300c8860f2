"""What was said: segments and words, joining slices, and the formats to write it in.

Also the options of how to recognise it.

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
from steno.transcript.options import Options
from steno.transcript.render import FORMATS, Format
from steno.transcript.stitch import stitch

__all__ = [
    "FORMATS",
    "SAMPLE_RATE",
    "Coverage",
    "Format",
    "Model",
    "Options",
    "Segment",
    "SliceTranscript",
    "Span",
    "Transcript",
    "Word",
    "cover",
    "join_coverage",
    "stitch",
]
