"""What was said: segments and words, joining slices, and the formats to write it in.

Pure: the standard library only, nothing is read or written.
"""

from steno.transcript.model import SAMPLE_RATE, Model, Segment, SliceTranscript, Transcript, Word
from steno.transcript.render import CONTENT_TYPE, Format, render
from steno.transcript.stitch import stitch

__all__ = [
    "CONTENT_TYPE",
    "SAMPLE_RATE",
    "Format",
    "Model",
    "Segment",
    "SliceTranscript",
    "Transcript",
    "Word",
    "render",
    "stitch",
]
