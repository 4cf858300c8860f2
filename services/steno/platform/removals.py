"""Removals: bytes in the object store that must go, on record until they are gone.

Each byte in the store is named by some row, else by a removal, so none is forgotten when a process
dies. A schema has its removals in a table of its own: `removals`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from steno.platform import database
from steno.platform.database import Connection, Pool, every, one
from steno.platform.objects import ObjectStore

log = logging.getLogger(__name__)

SECOND_REMOVAL_AFTER = timedelta(hours=1)
"""Longer than any writer that lost its right to write can go on without noticing."""

# Has bytes removed after a while.
ADD_REMOVAL = """
INSERT INTO {table} ({written}, due_time)
VALUES ({values}, now() + %(delay)s)
RETURNING {columns}
"""

# Takes back a removal, unless it was claimed: then it may have been done, in part at least.
CANCEL_REMOVAL = """
DELETE FROM {table}
WHERE removal_id = %(removal_id)s AND try_count = 0 AND NOT done_once
RETURNING 1
"""

# Takes removals: those that are named, or else those that are due. A claim ends by itself, so that
# a removal whose process died or whose store was away comes again; few are taken at once, so that
# none ends while those before it are being removed.
CLAIM_REMOVALS = """
UPDATE {table} SET {claim}
WHERE removal_id IN (
    SELECT removal_id FROM {table}
    WHERE CASE WHEN %(removal_ids)s::uuid[] IS NULL THEN due_time <= now()
               ELSE removal_id = ANY(%(removal_ids)s) END
    ORDER BY due_time LIMIT 20
    FOR UPDATE SKIP LOCKED
)
RETURNING {columns}
"""

# Has bytes that are gone removed once more after a pause; the second time, forgets them.
SETTLE_REMOVAL = """
WITH again AS (
    UPDATE {table}
    SET done_once = true, {untried}due_time = now() + %(pause)s
    WHERE removal_id = %(removal_id)s AND NOT done_once
    RETURNING removal_id
)
DELETE FROM {table}
WHERE removal_id = %(removal_id)s AND removal_id NOT IN (SELECT removal_id FROM again)
"""

# A removal that goes wrong again and again comes ever less often, yet at least once an hour.
_COUNTED_CLAIM = """try_count = try_count + 1,
    due_time = now() + least(interval '1 hour', interval '1 minute' * power(2, least(try_count, 6)))
"""
_PLAIN_CLAIM = "due_time = now() + interval '1 minute'"


@dataclass(frozen=True, slots=True)
class Removal:
    """Bytes that must go from the store.

    Attributes:
        removal_id: its row.
        object_key: one object, or all below it if it ends with a slash.
        multipart_id: the multipart upload of that key whose parts go, too.
    """

    removal_id: UUID
    object_key: str
    multipart_id: str | None


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements above, on the table of one schema."""

    add: str
    cancel: str
    claim: str
    settle: str


class Removals:
    """The removals of one schema, in SQL."""

    def __init__(
        self,
        pool: Pool,
        schema: str,
        *,
        key_column: str = "object_key",
        only_prefixes: bool = False,
    ) -> None:
        """Takes what it works with.

        Args:
            pool: of the database.
            schema: has the table.
            key_column: of the table.
            only_prefixes: the table has neither multipart uploads nor counts of tries.
        """
        self._pool = pool
        multipart = [] if only_prefixes else ["multipart_id"]
        words = {
            "table": f"{schema}.removals",
            "written": ", ".join([key_column, *multipart]),
            "values": ", ".join(f"%({name})s" for name in ["object_key", *multipart]),
            "columns": f"removal_id, {key_column} AS object_key, "
            + ("NULL AS multipart_id" if only_prefixes else "multipart_id"),
            "claim": _PLAIN_CLAIM if only_prefixes else _COUNTED_CLAIM,
            "untried": "" if only_prefixes else "try_count = 0, ",
        }
        self.statements = Statements(
            add=ADD_REMOVAL.format(**words),
            cancel=CANCEL_REMOVAL.format(**words),
            claim=CLAIM_REMOVALS.format(**words),
            settle=SETTLE_REMOVAL.format(**words),
        )

    async def add(
        self,
        db: Connection,
        object_key: str,
        multipart_id: str | None = None,
        delay: timedelta = timedelta(),
    ) -> Removal:
        """Has bytes removed after a while, if the transaction is committed."""
        values = {"object_key": object_key, "multipart_id": multipart_id, "delay": delay}
        row = await one(db, self.statements.add, **values)
        assert row is not None
        return Removal(**row)

    async def cancel(self, db: Connection, removal: Removal) -> bool:
        """Keeps the bytes, if the transaction is committed. False: it is too late.

        Not for a table without counts of tries.
        """
        return await one(db, self.statements.cancel, removal_id=removal.removal_id) is not None

    async def claim(self, wanted: Sequence[Removal] | None = None) -> list[Removal]:
        """Takes removals for a minute or more: those wanted, or else up to 20 that are due."""
        ids = None if wanted is None else [removal.removal_id for removal in wanted]
        async with self._pool.connection() as db:
            return [
                Removal(**row) for row in await every(db, self.statements.claim, removal_ids=ids)
            ]

    async def settle(self, removal: Removal) -> None:
        """The bytes are gone. The first time, they are removed once more after a while."""
        values = {"removal_id": removal.removal_id, "pause": SECOND_REMOVAL_AFTER}
        async with self._pool.connection() as db:
            await db.execute(self.statements.settle, values)


class Remover:
    """Removes bytes whose removal is on record: at once when asked to, else when it is due.

    Any number of replicas may sweep at the same time.
    """

    def __init__(self, removals: Removals, objects: ObjectStore) -> None:
        self._removals = removals
        self._objects = objects

    async def sweep(self) -> None:
        """Removes all bytes that are due.

        What the store refuses comes later, and holds up nothing else.

        Raises:
            Unavailable: the store does not answer at all; or an error of database.AWAY.
        """
        while removals := await self._removals.claim():
            for removal in removals:
                try:
                    await self._remove(removal)
                except database.OF_ONE as error:
                    self._left(removal, error)
                except database.AWAY:
                    raise
                except Exception as error:
                    self._left(removal, error)
                    await self._objects.check()

    async def remove(self, removals: Sequence[Removal]) -> None:
        """Removes bytes now if the store answers, else soon. Never raises."""
        if not removals:
            return
        try:
            for removal in await self._removals.claim(removals):
                await self._remove(removal)
        except Exception as error:
            log.warning("bytes are removed later: %s", error, extra={"action": "remove"})

    def _left(self, removal: Removal, error: Exception) -> None:
        """Notes that bytes are still there; their claim ends by itself, and they come again."""
        where = removal.object_key
        log.warning("%s not removed: %s", where, error, extra={"action": "remove"})

    async def _remove(self, removal: Removal) -> None:
        if removal.multipart_id is not None:
            await self._objects.abort_multipart(removal.object_key, removal.multipart_id)
        if removal.object_key.endswith("/"):
            await self._objects.remove_prefix(removal.object_key)
        else:
            await self._objects.remove(removal.object_key)
        await self._removals.settle(removal)
