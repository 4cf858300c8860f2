"""Small file systems, one for each server, which can be full from one moment to the next.

A tmpfs takes no more than its size, and its size can be changed while it is used: a disk that is
full is one that is as small as what lies on it. Only root may mount one; elsewhere there is no such
fault.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOMY = "16g"
"""A limit, not memory that is taken. SeaweedFS plans its volumes by it."""


_TRIES = 20


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self) -> None:
        """Nothing more can be written, but for what comes until this has come about."""
        for _ in range(_TRIES - 1):
            with suppress(subprocess.CalledProcessError):  # it has grown meanwhile
                return self._resize(str(self.used))
        return self._resize(str(self.used))

    def clear(self) -> None:
        """There is room again."""
        self._resize(ROOMY)

    @property
    def used(self) -> int:
        """Bytes that lie on it."""
        status = os.statvfs(self._folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def _resize(self, size: str) -> None:
        subprocess.run(
            ["mount", "-o", f"remount,size={size}", str(self._folder)],
            check=True,
            capture_output=True,
        )


@contextmanager
def mounted(folder: Path) -> Iterator[Disk | None]:
    """A disk at a folder, until the end; None where we may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOMY},mode=755", "steno-faults", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        # Lazily: what was killed may not have let go of it yet.
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
