"""Recordings that are in order, under names that are none."""

from __future__ import annotations

from corpus.answers import Answer, NotTaken, Ready
from corpus.files import File, constant
from corpus.waves import data, format_chunk, wave

RECORDING = constant(wave(format_chunk(), data()))
HEARD = Ready(1.0)
REFUSED = NotTaken("header.filename")

NAMES: dict[str, tuple[str, Answer]] = {
    "no name": ("", REFUSED),
    "a name of 255 characters": ("x" * 255, HEARD),
    "a name of 256 characters": ("x" * 256, REFUSED),
    "a name of 255 characters of four bytes": ("\U0001f399" * 255, HEARD),
    "a name with a NUL": ("recording\0.wav", REFUSED),
    "a name that leads upwards": ("../../../../etc/passwd", HEARD),
    "a name that is an option": ("-rf", HEARD),
    "a name that is a URL": ("http://127.0.0.1:9/recording.wav", HEARD),
    "a name that is a command": ("$(id).wav; id | id `id`", HEARD),
    "a name that is SQL": ("'; DROP TABLE upload.audio; --", HEARD),
    "a name that is HTML": ("<script>alert(1)</script>.wav", HEARD),
    "a name that is a format string": ("%s%n{0}{filename!r}.wav", HEARD),
    "a name that ends a header": ('a.wav"\r\nSet-Cookie: x=y\r\n\r\n', HEARD),
    "a name that is written backwards": ("recording\u202egnp.wav", HEARD),
    "a name of spaces": ("   ", HEARD),
    "a name of marks that go on top of one another": ("a" + "\u0301" * 200, HEARD),
}

FILES = tuple(File(name, RECORDING, answer, text) for name, (text, answer) in NAMES.items())
