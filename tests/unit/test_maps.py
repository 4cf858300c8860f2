"""The map in the docstring of a room names its files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import steno

SOURCES = Path(steno.__file__).parent


def docstring_of(room: Path) -> str:
    return ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""


def has_map(room: Path) -> bool:
    """A map is made of lines that begin with the name of a file."""
    return re.search(r"^ *\w+\.py  ", docstring_of(room), re.MULTILINE) is not None


ROOMS = sorted(path.parent for path in SOURCES.rglob("__init__.py") if has_map(path.parent))


def test_the_larger_rooms_have_maps() -> None:
    assert {"cli", "job", "platform", "transcription"} <= {room.name for room in ROOMS}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_map_names_exactly_the_files_of_its_room(room: Path) -> None:
    named = re.findall(r"\b\w+\.py\b", docstring_of(room))
    there = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]

    assert sorted(named) == sorted(there)
