"""Folders for the servers of tests."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 12 * 2**30
"""Free memory. One test alone fills 3 GiB, beside what else runs."""


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for data of servers, in memory where there is room for it; removed afterwards.

    In memory, because each test has a database of its own: some 400 files, for which a file system
    on a disk may take half a second. Its path is short enough for sockets; pytest's own are not.
    """
    folder = Path(tempfile.mkdtemp(prefix="steno-", dir=_MEMORY if _is_roomy() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_roomy() -> bool:
    if not _MEMORY.is_dir():
        return False
    (available,) = re.findall(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    free = [int(available) * 1024, shutil.disk_usage(_MEMORY).free]
    limit = Path("/sys/fs/cgroup/memory.max")  # of the container that we are in, if any
    if limit.exists() and limit.read_text().strip() != "max":
        free.append(int(limit.read_text()))
    return min(free) > _ENOUGH_BYTES
