"""Folders for the servers of tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 8 * 2**30


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for data of servers, in memory where there is room for it; removed afterwards.

    In memory, because each test has a database of its own: some 400 files, for which a file system
    on a disk may take half a second. Its path is short enough for sockets; pytest's own are not.
    """
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
    folder = Path(tempfile.mkdtemp(prefix="steno-", dir=_MEMORY if roomy else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
