"""What the system knows of a process."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from waiting import eventually


def memory_of(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process in bytes: now, or with `VmHWM` the most so far."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


async def halt(pid: int) -> None:
    """Halts a process and waits until it stands: on a busy machine threads go on for a while."""

    def stands() -> bool:
        states = []
        for task in Path(f"/proc/{pid}/task").glob("*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                states.append(task.read_text().rpartition(")")[2].split()[0])
        return all(state == "T" for state in states)

    os.kill(pid, signal.SIGSTOP)
    await eventually(stands)


def descendants_of(pid: int) -> list[int]:
    """Processes that run under another, the nearest first."""
    found = [pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            found += map(int, children)
    return found[1:]
