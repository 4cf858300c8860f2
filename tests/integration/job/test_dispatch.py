"""What it costs to find the task that is started next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg

from rows import Rows
from steno.job.dispatch import BATCH
from steno.job.outbox import Outbox
from steno.job.turns import A_WHILE, DUE_TASKS, LEAST_SHARE, LEAST_WAITING, MOMENT
from steno.platform.database import open_pool
from steno.platform.settings import PostgresSettings

TENANTS = 50
EACH = 400

JOBS = f"""
INSERT INTO job.jobs (job_id, tenant, audio_id, display_name, labels, config)
SELECT gen_random_uuid(), 'tenant-' || number, gen_random_uuid(), '', '{{}}',
    '{{"model": "builtin"}}'
FROM generate_series(1, {TENANTS}) AS number
"""

TASKS = f"""
INSERT INTO job.tasks (job_id, tenant, model, slice_index, start_sample, sample_count,
    speech_sample_count, object_key, released, turn)
SELECT job_id, tenant, 'builtin', number, number * 10, 10, 10, '', true, number * 10
FROM job.jobs, generate_series(0, {EACH - 1}) AS number
"""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


async def test_of_tenants_the_first_task_is_read_and_more_only_where_it_may_be_next(
    environment: dict[str, str], rows: Rows
) -> None:
    rows(JOBS)
    rows(TASKS)
    names = ("limit", "least_waiting", "moment", "a_while", "least_share", "aside")
    values = (BATCH, LEAST_WAITING, MOMENT, A_WHILE, LEAST_SHARE, list[UUID]())

    with psycopg.connect(environment["STENO_POSTGRES_URL"]) as db:
        explained = db.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) " + DUE_TASKS, dict(zip(names, values, strict=True))
        )
        [([plan],)] = explained.fetchall()
    read = sum(
        node["Actual Rows"] * node["Actual Loops"]
        for node in nodes(plan["Plan"])
        if node.get("Relation Name") == "tasks"
    )
    async with open_pool(PostgresSettings()) as pool:
        due = await Outbox(pool).due_tasks(*values)

    assert len(due) == LEAST_WAITING
    # A step to each tenant's line, its first task, then as many of as many lines as there is room.
    assert read <= 2 * TENANTS + LEAST_WAITING * LEAST_WAITING + 2
