"""Wall clocks of services, one for each, which can be stepped while they run.

Debian's libfaketime does it; where it is not installed, there is no such fault. What a service
measures by its monotonic clock is not stepped, as on a machine whose time is set.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

LIBRARY = "faketime/libfaketimeMT.so.1"
SHARED_MEMORY = Path("/dev/shm")


class Clock:
    """The clock of one process, set by a file that the process reads."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library, self._file = library, file
        self.step(0)

    def step(self, seconds: int) -> None:
        """It is ahead of the right time by that from now on; behind, if negative."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+}\n")
        new.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What the process needs to go by it."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds: to read the file at each call takes long
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def library() -> Path | None:
    """Where libfaketime is: in the system, or beside the other tools."""
    system, tools = Path("/usr/lib"), Path(__file__).parents[2] / ".tools"
    return next(chain(system.glob(f"*/{LIBRARY}"), tools.glob(f"**/{LIBRARY}")), None)


def clear() -> None:
    """Removes what libfaketime leaves behind of processes that have ended."""
    for file in SHARED_MEMORY.glob("*faketime_*"):
        if not Path("/proc", file.name.rpartition("_")[2]).exists():
            file.unlink(missing_ok=True)
