"""SQL in the database of a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.rows import dict_row

Rows = Callable[..., list[dict[str, Any]]]
"""Runs a statement with its parameters, and returns the rows that it gives."""


def rows_of(url: str) -> Rows:
    """Each statement has a connection of its own."""

    def run(statement: str, *parameters: Any) -> list[dict[str, Any]]:
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as db:
            cursor = db.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    return run
