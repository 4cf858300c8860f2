"""The clock that a fault steps is the one that a process reads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults.clock import Clock, clear, library

TELL = "import time; print(time.time(), time.monotonic())"


@pytest.mark.skipif(library() is None, reason="libfaketime is not there: Debian's package has it")
def test_a_clock_is_stepped_and_the_monotonic_one_is_not(tmp_path: Path) -> None:
    clock = Clock(library() or Path(), tmp_path / "clock")
    clock.step(3600)

    told = subprocess.check_output(
        [sys.executable, "-c", TELL], env={**os.environ, **clock.environment}, text=True
    )

    clear()
    wall, monotonic = map(float, told.split())
    assert wall == pytest.approx(time.time() + 3600, abs=60)
    assert monotonic == pytest.approx(time.monotonic(), abs=60)
