"""What the system knows of a process."""

from __future__ import annotations

from pathlib import Path


def memory_of(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process in bytes: now, or with `VmHWM` the most so far."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024
