"""What the job service says of its queue is what is in its tables."""

from __future__ import annotations

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
