"""Folders for platforms."""

from __future__ import annotations

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
