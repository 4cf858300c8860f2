"""Files that end too early: nothing, a byte, and recordings that are cut off."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from corpus.answers import Answer, Ready, Rejected
from corpus.files import File, constant
from encoding import FORMATS, RATE, chirp, encode
from steno.audio import Reason, wav_header

SECONDS = 6.0


@dataclass(frozen=True)
class Form:
    """How recordings of a format end when they are cut.

    Attributes:
        percents: of the file, at which it is cut.
        header_percent: of the file; without so much of it nothing can be read.
        tolerance: what may be missing beside what was cut off, in seconds: a frame, or a page.
    """

    percents: Sequence[int] = (30, 60, 90)
    header_percent: int = 0
    tolerance: float = 0.1


EACH_TWENTIETH = range(5, 100, 5)

CUT = {
    "wav": Form(EACH_TWENTIETH),
    "mp3": Form(EACH_TWENTIETH),
    "flac": Form(header_percent=9, tolerance=0.5),
    "ogg opus": Form(header_percent=18, tolerance=1.2),
    "webm opus": Form(tolerance=0.2),
    "m4a": Form(header_percent=100),  # its index comes last
}


@cache
def whole(form: str) -> bytes:
    """The recording that is cut."""
    return encode(chirp(SECONDS), RATE, FORMATS[form])


def cut_off(form: str, percent: int) -> Callable[[random.Random], bytes]:
    """What is left of a recording after so much of it."""
    return lambda _: whole(form)[: len(whole(form)) * percent // 100]


def rest(form: Form, percent: int) -> Answer:
    """What can be heard of a recording that is cut."""
    if percent < form.header_percent:
        return Rejected(Reason.UNREADABLE)
    return Ready(SECONDS * percent / 100, form.tolerance, truncated=True)


def _cuts() -> Iterator[File]:
    for name, form in CUT.items():
        for percent in form.percents:
            yield File(
                f"a recording in {name} of which {percent} % came",
                cut_off(name, percent),
                rest(form, percent),
            )


FILES = (
    File("a file without a byte", constant(b""), Rejected(Reason.EMPTY)),
    File("a file of one byte", constant(b"R"), Rejected(Reason.UNSUPPORTED_FORMAT)),
    File(
        "a file of four bytes that begin a WAV",
        constant(b"RIFF"),
        Rejected(Reason.UNSUPPORTED_FORMAT),
    ),
    File("half the header of a WAV", constant(wav_header(0)[:30]), Rejected(Reason.UNREADABLE)),
    File("the header of a WAV, and no more", constant(wav_header(0)), Rejected(Reason.NO_SAMPLES)),
    File("the signature of an Ogg, and no more", constant(b"OggS"), Rejected(Reason.UNREADABLE)),
    File("the signature of a FLAC, and no more", constant(b"fLaC"), Rejected(Reason.UNREADABLE)),
    *_cuts(),
)
