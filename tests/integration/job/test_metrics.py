"""What the job service says of its queue is what is in its tables."""

from __future__ import annotations

import psycopg
import pytest
from prometheus_client import REGISTRY

from steno.job.outbox import Outbox
from steno.platform.database import open_pool
from steno.platform.settings import PostgresSettings
from waiting import eventually


async def test_what_waits_is_counted_and_how_long_the_oldest_does(replica, upload, worker) -> None:
    async with open_pool(PostgresSettings()) as pool:
        outbox = Outbox(pool)
        assert (await outbox.statistics()).oldest_task == 0
        await replica.create(upload.record(slices=2))

        waiting = await outbox.statistics()
        assert waiting.tasks == {"PENDING": 2}
        assert waiting.queued == {"builtin": 60}
        assert waiting.oldest_task > 0

        await worker.do(2)

        async def nothing_waits() -> bool:
            statistics = await outbox.statistics()
            return not statistics.tasks and not statistics.queued and statistics.oldest_task == 0

        await eventually(nothing_waits)


async def test_transactions_are_timed_also_those_that_fail(environment: dict[str, str]) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("steno_postgres_seconds_count") or 0

    async with open_pool(PostgresSettings()) as pool:
        before = count()
        async with pool.connection() as db:
            await db.execute("SELECT 1")
        with pytest.raises(psycopg.errors.SyntaxError):
            async with pool.connection() as db:
                await db.execute("SELECT FROM WHERE")

        assert count() == before + 2
