"""What `steno live` sends and shows."""

from __future__ import annotations

import os
import struct
from io import BufferedReader
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from recordings import wav
from steno.cli.live import open_source
from steno.cli.reading import sendable
from steno.cli.sessions import one_line

SOUND = np.arange(1000, dtype=np.int16)


async def sent(file: Path) -> bytes:
    source = open_source(str(file), realtime=False)
    assert isinstance(source.file, BufferedReader)
    with source.file:
        return b"".join([chunk async for chunk in source.chunks(0.2)])


async def test_what_stands_behind_the_sound_of_a_wav_is_not_sent(tmp_path: Path) -> None:
    plain, tagged = tmp_path / "plain.wav", tmp_path / "tagged.wav"
    plain.write_bytes(wav(SOUND))
    tagged.write_bytes(wav(SOUND) + b"LIST" + struct.pack("<I", 400) + bytes(400))

    assert len(await sent(plain)) == 2 * len(SOUND)
    assert await sent(tagged) == await sent(plain)


@pytest.mark.parametrize("untold", [0, 0x7FFFF7FF, 0xFFFFFFFF])
async def test_a_wav_that_does_not_know_its_length_is_sent_to_its_end(
    tmp_path: Path, untold: int
) -> None:
    whole = wav(SOUND)
    place = whole.index(b"data") + 4
    file = tmp_path / "growing.wav"
    file.write_bytes(whole[:place] + struct.pack("<I", untold) + whole[place + 4 :])

    assert len(await sent(file)) == 2 * len(SOUND)


def test_a_name_that_is_not_utf_8_can_be_sent() -> None:
    assert sendable(os.fsdecode(b"caf\xe9.mp3")) == "caf\N{REPLACEMENT CHARACTER}.mp3"
    assert sendable("café.mp3") == "café.mp3"


@pytest.mark.parametrize("said", ["one two " * 20, "会議" * 30, "short"])
def test_what_is_being_said_stays_on_one_line(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    shown = one_line(said, " loose").replace("\x1b[2m", "").replace("\x1b[0m", "")

    assert cell_len(shown) < 40
    assert shown.endswith(" loose")
    assert len(said) > 40 or shown == "short loose"
