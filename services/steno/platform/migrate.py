"""Brings schemas up to date: `python -m steno.platform.migrate upload job`.

Each service owns the schema of its name. Its revisions are plain SQL in
`steno/<service>/migrations/versions/`, each a transaction. Running it again, or twice at once, is
safe. Services go on meanwhile: a statement that would wait for a lock, with all writers queued
behind it, gives up soon, and its revision is tried again.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.resources import files

import psycopg
from alembic import command
from alembic.config import Config
from psycopg.errors import LockNotAvailable
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from steno.platform.settings import PostgresSettings

# Any number will do, as long as it stays the same: one migration at a time in a database.
_LOCK = 0x5374656E6F

LOCK_SECONDS = 2.0
"""Longest wait for a lock: so long writers may wait behind it."""
PAUSE_SECONDS = 1.0
"""Time that they have before the revision is tried again."""
PATIENCE_SECONDS = 600.0
"""Time in which the lock must be had once."""

SCHEMAS = ("upload", "job", "concatenation")
"""The services that keep something in Postgres."""


def migrate(postgres_url: str, service: str, revision: str = "head") -> None:
    """Brings one service's schema to a revision.

    Raises:
        sqlalchemy.exc.OperationalError: a lock could not be had in PATIENCE_SECONDS, or the
            database does not answer; psycopg.OperationalError: it did not from the start.
    """
    # The URL goes to libpq as it is: SQLAlchemy would read socket folders and options differently.
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: _connect(postgres_url), poolclass=NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(files("steno.platform") / "alembic"))
    config.set_main_option("version_locations", _versions(service))
    config.set_main_option("path_separator", "os")
    with psycopg.connect(postgres_url, autocommit=True) as lock, engine.connect() as connection:
        # Not waited for in Postgres: an index that is built concurrently waits for who waits there.
        while lock.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() != (True,):
            time.sleep(PAUSE_SECONDS)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {service}"))
        connection.commit()
        config.attributes.update(connection=connection, schema=service)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                command.upgrade(config, revision)
                connection.commit()
                return
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > give_up:
                    raise
                print(f"schema {service}: a lock is taken, will try again", file=sys.stderr)
            connection.rollback()
            time.sleep(PAUSE_SECONDS)


def _connect(postgres_url: str) -> psycopg.Connection:
    connection = psycopg.connect(postgres_url, autocommit=True)
    connection.execute(
        "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false),"
        " set_config('idle_in_transaction_session_timeout', '0', false)",
        [f"{LOCK_SECONDS}s"],
    )
    connection.autocommit = False
    return connection


def _versions(service: str) -> str:
    return str(files(f"steno.{service}") / "migrations" / "versions")


def main() -> None:
    """Migrates the services named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m steno.platform.migrate", description=__doc__)
    parser.add_argument("services", nargs="+", metavar="SERVICE", choices=SCHEMAS)
    arguments = parser.parse_args()
    url = PostgresSettings().postgres_url.get_secret_value()
    for service in arguments.services:
        try:
            migrate(url, service)
        except psycopg.OperationalError as error:
            sys.exit(f"migrate: the database does not answer: {error}")
        except OperationalError as error:
            sys.exit(f"migrate: the schema {service} can't be changed now: {error.orig}")
        print(f"schema {service} is up to date")


if __name__ == "__main__":
    main()
