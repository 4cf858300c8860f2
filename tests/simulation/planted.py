"""Bugs, each planted by a change of a few words, and the promise that it breaks.

A simulation that does not find these would find nothing else: what it is silent about says only as
much as what it tells of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from planting import Change
from simulation import database
from simulation.database import Row, Transaction
from simulation.evidence import Promise


@dataclass(frozen=True)
class Statement:
    """A statement, of those that a service has, that does something else."""

    statements: dict[str, tuple[str, database.Statement]]
    sql: str
    does: Callable[[Transaction, Mapping[str, Any]], Sequence[Row]]

    def make(self, patch: pytest.MonkeyPatch) -> None:
        name, _ = self.statements[self.sql]
        patch.setitem(self.statements, self.sql, (name, self.does))


@dataclass(frozen=True)
class Bug:
    """A bug.

    Attributes:
        name: what is wrong.
        edits: what makes it so.
        breaks: promises of which each, by itself, tells of it.
        mix: of faults that brings it to light; "" if any does.
    """

    name: str
    edits: tuple[Change, ...]
    breaks: tuple[Promise, ...]
    mix: str = ""

    def plant(self, patch: pytest.MonkeyPatch) -> None:
        for edit in self.edits:
            edit.make(patch)
