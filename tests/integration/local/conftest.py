"""Folders for platforms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from folders import server_folder
from local_platforms import processes_of


@contextmanager
def _data_dir() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder
        deadline = time.monotonic() + 60
        while processes_of(folder) and time.monotonic() < deadline:
            time.sleep(0.05)  # who was killed needs the processor to end
        assert processes_of(folder) == {}


@pytest.fixture(scope="session")
def make_data_dir() -> Callable[[], AbstractContextManager[Path]]:
    """Makes a folder for one platform; afterwards nothing may run on it."""
    return _data_dir


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder for one platform; after the test nothing may run on it."""
    with _data_dir() as folder:
        yield folder
