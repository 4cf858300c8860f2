"""What a schedule leaves, and what of it shows that a promise does not hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from simulation.bus import Bus
from simulation.database import Row, Server
from simulation.history import History


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that does not hold, and what shows it."""

    promise: str
    why: str

    def __str__(self) -> str:
        return f"{self.promise.replace('_', ' ')}: {self.why}"


@dataclass(frozen=True, slots=True)
class Change:
    """A row that a commit has changed, and for which process."""

    time: float
    client: str
    key: Any
    old: Row | None
    new: Row | None


@dataclass
class Evidence:
    """What a schedule has left.

    Attributes:
        history: what everybody asked and was told.
        database: what was committed.
        bus: what was published.
        started: when each replica began.
        late: who had not come to an end in time.
    """

    history: History
    database: Server
    bus: Bus
    started: dict[str, float]
    late: list[str]

    @cached_property
    def changes(self) -> dict[str, list[Change]]:
        """Each change of a row, by table, in the order of the commits."""
        found: dict[str, list[Change]] = defaultdict(list)
        for commit in self.database.log:
            for (table, key), (old, new) in commit.rows.items():
                found[table].append(Change(commit.time, commit.client, key, old, new))
        return found


Promise = Callable[[Any], Iterator[str]]
"""Yields what shows, in the evidence of a schedule, that it does not hold."""


def broken_promises(promises: Sequence[Promise], seen: Evidence) -> list[Broken]:
    """The promises that do not hold, each with the first thing that shows it."""
    found = []
    for promise in promises:
        why = next(promise(seen), None)
        if why is not None:
            found.append(Broken(promise.__name__, why))
    return found
