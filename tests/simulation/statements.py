"""What the functions that stand for SQL statements are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

from simulation.database import Row, Statement, Transaction

Parameters = Mapping[str, Any]


def there(row: Row | None) -> list[Row]:
    return [row] if row is not None else []


def locked(tx: Transaction, table: str, key: Any) -> Row | None:
    """A row as it is once it is locked."""
    if tx.get(table, key) is None:
        return None
    tx.lock(table, key)
    return tx.get(table, key)


def free(
    tx: Transaction,
    table: str,
    rows: Iterable[Row],
    key: Callable[[Row], Any],
    limit: int | None = None,
) -> list[Row]:
    """The first rows that nobody else holds, locked."""
    found: list[Row] = []
    for row in rows:
        if len(found) == limit:
            break
        if tx.lock_if_free(table, key(row)):
            found.append(row)
    return found


def assigned(sql: str) -> list[str]:
    """The columns that an UPDATE sets to parameters of their names, or to what is to be saved."""
    return re.findall(r"(\w+) = (?:%\(\1\)s|saved\.\1\b)", sql.partition("WHERE")[0])


def statements_of(
    functions: Mapping[str, Any], *modules: ModuleType, without: Collection[str]
) -> dict[str, tuple[str, Statement]]:
    """Name and function of each statement of some modules, by its SQL.

    Args:
        functions: by the name of the statement, in small letters.
        modules: hold the statements.
        without: names of statements that need none.

    Raises:
        NotImplementedError: there is a statement without a function.
    """
    found: dict[str, tuple[str, Statement]] = {}
    for module in modules:
        for name, value in vars(module).items():
            if not (name.isupper() and isinstance(value, str) and name not in without):
                continue
            if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value):
                continue
            function = functions.get(name.lower())
            if function is None:
                raise NotImplementedError(f"{module.__name__}.{name} has no function here")
            found[value] = (name, function)
    return found
