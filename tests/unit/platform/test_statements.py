"""SQL that goes on while another version of a service changes the schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import steno

SOURCES = Path(steno.__file__).parent

STORES = sorted(
    path
    for name in ("store", "statements", "outbox", "removals")
    for path in SOURCES.glob(f"*/{name}.py")
)


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.parent.name + "." + path.stem)
def test_statements_name_their_columns(store: Path) -> None:
    """A prepared statement that asks for all columns fails from when a migration adds one."""
    every = re.findall(r"(?:SELECT|RETURNING)\s+(?:\w+\.)?\*.*", store.read_text())

    assert every == []
