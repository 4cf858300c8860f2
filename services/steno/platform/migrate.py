"""Brings schemas up to date: `python -m steno.platform.migrate upload job`.

Each service owns the schema of its name. Its revisions are plain SQL in
`steno/<service>/migrations/versions/`. Running it again, or twice at once, is safe.
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from steno.platform.settings import PostgresSettings

# Any number will do, as long as it stays the same: one migration at a time in a database.
_LOCK = 0x5374656E6F

SCHEMAS = ("upload", "job", "concatenation")
"""The services that keep something in Postgres."""


def migrate(postgres_url: str, service: str, revision: str = "head") -> None:
    """Brings one service's schema to a revision.

    Raises:
        sqlalchemy.exc.OperationalError: the database does not answer.
    """
    # The URL goes to libpq as it is: SQLAlchemy would read socket folders and options differently.
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(postgres_url), poolclass=NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(files("steno.platform") / "alembic"))
    config.set_main_option(
        "version_locations", str(files(f"steno.{service}") / "migrations" / "versions")
    )
    config.set_main_option("path_separator", "os")
    with engine.connect() as lock, engine.connect() as connection:
        lock.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {service}"))
        connection.commit()
        config.attributes.update(connection=connection, schema=service)
        command.upgrade(config, revision)
        connection.commit()


def main() -> None:
    """Migrates the services named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m steno.platform.migrate", description=__doc__)
    parser.add_argument("services", nargs="+", metavar="SERVICE", choices=SCHEMAS)
    arguments = parser.parse_args()
    url = PostgresSettings().postgres_url.get_secret_value()
    for service in arguments.services:
        try:
            migrate(url, service)
        except OperationalError as error:
            sys.exit(f"migrate: the database does not answer: {error.orig}")
        print(f"schema {service} is up to date")


if __name__ == "__main__":
    main()
