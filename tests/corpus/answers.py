"""What Steno must answer to an input."""

from __future__ import annotations

from dataclasses import dataclass

from steno.audio import Reason


@dataclass(frozen=True)
class Ready:
    """The file is a recording, and becomes an audio that is READY.

    Attributes:
        seconds: how long it is.
        tolerance: by how many seconds that may differ: codecs have frames, and warm up.
        truncated: its end is missing, and the audio says so.
    """

    seconds: float
    tolerance: float = 0.002
    truncated: bool = False


@dataclass(frozen=True)
class Rejected:
    """The file is none that can be transcribed, and its audio REJECTED for this reason."""

    reason: Reason


@dataclass(frozen=True)
class NotTaken:
    """The call that sends the file is refused, and no audio made: this field is wrong."""

    field: str


Answer = Ready | Rejected | NotTaken
