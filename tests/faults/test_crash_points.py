"""The table of crash points, and that a process dies at each once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.crash_matrix import matrix
from faults.crash_points import PLACES, Site, table
from faults.crashing import Crashes

SITE = Site("job", "store:Store.create_all:transaction#1")

PASSING = """
import asyncio, sys
from pathlib import Path
from faults.crash_points import Site
from faults.crashing import Crashes

async def main():
    crashes, site = Crashes(Path(sys.argv[1]), chance=1), Site(*sys.argv[2:])
    crashes.pass_by(site, "before")
    crashes.returning(site)
    await asyncio.sleep(0)
    print("alive")

asyncio.run(main())
"""


def passing(folder: Path) -> subprocess.CompletedProcess[str]:
    """A process that comes by all places of SITE."""
    command = [sys.executable, "-c", PASSING, str(folder), SITE.process, SITE.name]
    path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(command, env=path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("process", "name"),
    [
        ("upload", "answer:UploadService.CompleteUpload"),
        ("upload", "uploads:Uploads._join:complete_multipart#1"),
        ("upload", "settle:ack"),
        ("job", "store:Store.create_all:transaction#1"),
        ("job", "dispatch:Dispatcher._send:publish#1"),
        ("concatenation", "ingest:Ingest._put:put#1"),
        ("concatenation", "call:ImportAudio"),
        ("transcription", "call:CompleteTask"),
    ],
)
def test_each_kind_of_effect_is_in_the_table(process: str, name: str) -> None:
    assert Site(process, name) in table()


def test_what_only_reads_is_no_effect() -> None:
    assert Site("job", "store:Store.standings:connection#1") not in table()


def test_a_process_dies_once_at_each_place(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path)
    crashes.arm()

    ends = [passing(tmp_path) for _ in range(4)]

    assert [end.returncode for end in ends] == [-signal.SIGKILL] * 3 + [0], ends
    assert crashes.dead_at() == {(SITE, place) for place in PLACES}


def test_nobody_dies_unless_armed(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path)
    crashes.arm()
    crashes.disarm()

    assert passing(tmp_path).stdout == "alive\n"


def test_the_matrix_tells_where_nobody_died() -> None:
    rows = matrix([SITE], {(SITE, "before"), (SITE, "returned")}).splitlines()

    assert rows[0] == "2 of 3 places"
    assert rows[-1] == "| job | `store:Store.create_all:transaction#1` | died |  | died |"
