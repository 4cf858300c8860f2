"""`make bench-scale`: what the job service asks of Postgres, when little and when much is there.

Only Postgres runs. Each step is done some times on both databases, and the medians compared.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from pydantic import SecretStr

from steno.job.dispatch import BATCH
from steno.job.domain import (
    Audio,
    AudioState,
    JobFilter,
    JobState,
    NewJob,
    RetryRules,
    Slice,
)
from steno.job.outbox import Outbox
from steno.job.store import Store
from steno.local.servers import LocalServers
from steno.platform.database import open_pool
from steno.platform.migrate import migrate
from steno.platform.settings import PostgresSettings
from steno.transcript import SAMPLE_RATE, Options
from steno.v1.transcript_pb2 import SliceTranscript

REACH = 1.5
"""Times as much as with little, that a step may take with much."""
TIMES = 30
SAMPLES = 30 * SAMPLE_RATE


@dataclass(frozen=True)
class Size:
    """How much is there: jobs of one slice each, of so many tenants in turn."""

    ended: int
    waiting: int
    tenants: int


LITTLE = Size(1_000, 100, 10)
MUCH = Size(1_000_000, 50_000, 1_000)

# Rows as the service leaves them behind, without the way there. A job in twenty has failed, and one
# was cancelled; one ended every other second.
FILL = """
SET session_replication_role = replica;

INSERT INTO job.jobs (
    job_id, tenant, audio_id, display_name, labels, config, state, error_reason, error_message,
    audio_state, revision, progress, sample_count, transcribed_sample_count, task_count,
    joined_count, segment_count, speech_sample_count, create_time, update_time, start_time, end_time
)
SELECT md5('job' || n)::uuid, 'tenant-' || n %% {tenants}, md5('audio' || n)::uuid, n || '.mp3',
    jsonb_build_object('project', 'project-' || n %% 100), '{{"model": "tiny.en"}}', state,
    CASE WHEN state = 'FAILED' THEN 'SLICE_FAILED' END, CASE WHEN state = 'FAILED' THEN '' END,
    'READY', 4, CASE WHEN state = 'SUCCEEDED' THEN 1 ELSE 0 END, {samples},
    CASE WHEN state = 'SUCCEEDED' THEN {samples} ELSE 0 END, 1,
    CASE WHEN state = 'SUCCEEDED' THEN 1 ELSE 0 END, 1,
    CASE WHEN state = 'SUCCEEDED' THEN {samples} ELSE 0 END, time, time, time, time
FROM generate_series(1, {ended}) AS n, LATERAL (
    SELECT now() - n * interval '2 seconds' AS time,
        CASE n %% 20 WHEN 0 THEN 'FAILED' WHEN 1 THEN 'CANCELLED' ELSE 'SUCCEEDED' END AS state
) AS of;

INSERT INTO job.tasks (
    task_id, tenant, job_id, model, slice_index, start_sample, sample_count, speech_sample_count,
    object_key, state, attempt, worker_id, lease_time, end_time, transcribed_sample_count, result,
    released, dispatch_count, create_time
)
SELECT md5('task' || n)::uuid, tenant, job_id, 'tiny.en', 0, 0, {samples}, {samples},
    'slices/' || audio_id || '/0.wav', CASE state WHEN 'SUCCEEDED' THEN 'DONE' ELSE state END, 1,
    'worker', end_time, end_time, transcribed_sample_count,
    CASE WHEN state = 'SUCCEEDED' THEN '\\x00'::bytea END, true, 1, create_time
FROM generate_series(1, {ended}) AS n JOIN job.jobs ON job_id = md5('job' || n)::uuid;

INSERT INTO job.jobs (
    job_id, tenant, audio_id, display_name, labels, config, audio_state, revision, sample_count,
    task_count, turn
)
SELECT md5('waits' || n)::uuid, 'tenant-' || n %% {tenants}, md5('audio-w' || n)::uuid, n || '.mp3',
    jsonb_build_object('project', 'project-' || n %% 100), '{{"model": "tiny.en"}}', 'READY', 1,
    {samples}, 1, (n / {tenants} + 1) * {samples}
FROM generate_series(1, {waiting}) AS n;

INSERT INTO job.tasks (
    task_id, tenant, job_id, model, slice_index, start_sample, sample_count, speech_sample_count,
    object_key, released, turn
)
SELECT md5('waiting' || n)::uuid, 'tenant-' || n %% {tenants}, md5('waits' || n)::uuid, 'tiny.en',
    0, 0, {samples}, {samples}, 'slices/' || n || '/0.wav', true, n / {tenants} * {samples}
FROM generate_series(1, {waiting}) AS n;

INSERT INTO job.events (job_id, tenant, revision, payload, published, create_time)
SELECT job_id, tenant, number, '\\x00'::bytea, true, create_time
FROM job.jobs, generate_series(1, jobs.revision) AS number;

SET session_replication_role = DEFAULT;
"""


class Bed:
    """A database with so much in it, and what the job service has to ask it."""

    def __init__(self, store: Store, outbox: Outbox, size: Size) -> None:
        self.store = store
        self.outbox = outbox
        self.size = size
        self.number = 0
        self.untouched = size.waiting
        self.leased: list[tuple[UUID, int]] = []

    @property
    def tenant(self) -> str:
        """Another one each time."""
        self.number += 1
        return f"tenant-{self.number % self.size.tenants}"

    @property
    def waiting(self) -> UUID:
        """A job that waits, another one each time; of the first third, whose tasks stay."""
        self.number += 1
        return _id(f"waits{self.number * 7919 % (self.size.waiting // 3) + 1}")

    @property
    def ended(self) -> UUID:
        """A job that has ended, another one each time."""
        self.number += 1
        return _id(f"job{self.number * 7919 % self.size.ended + 1}")


def _id(name: str) -> UUID:
    return UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())


async def create(bed: Bed) -> None:
    """CreateJob's transaction."""
    piece = Slice(0, 0, SAMPLES, SAMPLES, "slices/new/0.wav")
    audio = Audio(uuid4(), "new.mp3", AudioState.READY, truncated=False, slices=(piece,))
    new = NewJob(audio.audio_id, Options("tiny.en"), tenant=bed.tenant)
    await bed.store.create(new, audio, None)


async def load(bed: Bed) -> None:
    """What CreateJob holds against the limits."""
    await bed.store.load(bed.tenant)


async def get(bed: Bed) -> None:
    """GetJob of one that has ended."""
    await bed.store.standing(bed.ended)


async def get_waiting(bed: Bed) -> None:
    """GetJob of one that waits: with its place and the time left."""
    await bed.store.standing(bed.waiting)


async def standings(bed: Bed) -> None:
    """What watchers of 100 jobs are told each second."""
    await bed.store.standings([bed.waiting for _ in range(100)])


def listing(where: Callable[[Bed], JobFilter]) -> Callable[[Bed], Awaitable[None]]:
    """ListJobs with a filter."""

    async def list_jobs(bed: Bed) -> None:
        await bed.store.page(where(bed), 100, None)

    return list_jobs


async def second_page(bed: Bed) -> None:
    """ListJobs from a page's end on."""
    where = JobFilter(tenant=bed.tenant)
    jobs = await bed.store.page(where, 10, None)
    await bed.store.page(where, 10, (jobs[-1].create_time, jobs[-1].job_id))


async def dispatch(bed: Bed) -> None:
    """Whose turn it is."""
    await bed.outbox.due_tasks(BATCH)


async def lease(bed: Bed) -> None:
    """LeaseTask."""
    task_id = _id(f"waiting{bed.untouched}")
    bed.untouched -= 1
    leased = await bed.store.lease(task_id, "worker", uuid4())
    bed.leased.append((task_id, leased.task.attempt))


async def complete(bed: Bed) -> None:
    """CompleteTask."""
    task_id, attempt = bed.leased.pop()
    await bed.store.complete(task_id, attempt, "en", SliceTranscript().SerializeToString())


async def sweep(bed: Bed) -> None:
    """What is looked for each second: past leases, late jobs, messages and audio to check."""
    await bed.store.past_leases(100, ())
    await bed.store.late(100, ())
    await bed.store.unjoined_jobs(100, ())
    await bed.outbox.messages_to_check(timedelta(seconds=10), 100)
    await bed.outbox.audio_to_check(timedelta(seconds=5), timedelta(minutes=10), 100)
    async with bed.outbox.unpublished(100):
        pass


async def retention(bed: Bed) -> None:
    """Which jobs are too old."""
    await bed.store.old(timedelta(days=20), 100, ())


async def statistics_(bed: Bed) -> None:
    """What the gauges are read from, every five seconds."""
    await bed.outbox.statistics()


STEPS: dict[str, Callable[[Bed], Awaitable[None]]] = {
    "CreateJob": create,
    "CreateJob: limits": load,
    "GetJob, ended": get,
    "GetJob, waiting": get_waiting,
    "WatchJob: 100 standings": standings,
    "ListJobs": listing(lambda bed: JobFilter(tenant=bed.tenant)),
    "ListJobs, by label": listing(
        lambda bed: JobFilter(tenant=bed.tenant, labels={"project": f"project-{bed.number % 100}"})
    ),
    "ListJobs, failed": listing(
        lambda bed: JobFilter(tenant=bed.tenant, states=frozenset({JobState.FAILED}))
    ),
    "ListJobs, waiting": listing(
        lambda bed: JobFilter(tenant=bed.tenant, states=frozenset({JobState.QUEUED}))
    ),
    "ListJobs, an hour of yesterday": listing(
        lambda bed: JobFilter(
            tenant=bed.tenant,
            create_time_from=datetime.now(UTC) - timedelta(hours=25),
            create_time_to=datetime.now(UTC) - timedelta(hours=24),
        )
    ),
    "ListJobs, second page": second_page,
    "dispatch": dispatch,
    "LeaseTask": lease,
    "CompleteTask": complete,
    "sweeps": sweep,
    "retention": retention,
    "metrics": statistics_,
}


@asynccontextmanager
async def bed(folder: Path, size: Size) -> AsyncIterator[Bed]:
    """A Postgres of its own, filled."""
    server = LocalServers(folder, durable=False).postgres
    await server.start()
    try:
        began = time.monotonic()
        await asyncio.to_thread(migrate, server.url, "job")
        async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as db:
            filled = FILL.format(samples=SAMPLES, **vars(size)).replace("%%", "%")
            for statement in filled.split(";\n"):
                if statement.strip():
                    await db.execute(statement)
            await db.execute("VACUUM ANALYZE job.jobs, job.tasks, job.events")
        print(f"{size}: filled in {time.monotonic() - began:.0f} s", flush=True)
        settings = PostgresSettings(postgres_url=SecretStr(server.url))
        async with open_pool(settings) as pool:
            rules = RetryRules(5, timedelta(minutes=5))
            yield Bed(Store(pool, timedelta(seconds=20), rules), Outbox(pool), size)
    finally:
        await server.stop()


async def measure(bed: Bed) -> dict[str, float]:
    """Median milliseconds of each step."""
    found = {}
    for name, step in STEPS.items():
        times = []
        for _ in range(TIMES):
            began = time.perf_counter()
            await step(bed)
            times.append(1000 * (time.perf_counter() - began))
        found[name] = statistics.median(times)
    return found


def table(little: dict[str, float], much: dict[str, float]) -> str:
    """As Markdown."""
    lines = [
        "| step | little, ms | much, ms | ratio | reached |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in STEPS:
        ratio = much[name] / little[name]
        reached = "yes" if ratio <= REACH else "no"
        lines.append(
            f"| {name} | {little[name]:.2f} | {much[name]:.2f} | {ratio:.1f} | {reached} |"
        )
    return "\n".join(lines)


async def run(sizes: Sequence[Size]) -> None:
    """Fills both, and measures them by turns."""
    with tempfile.TemporaryDirectory(prefix="steno-scale-") as folder:
        async with (
            bed(Path(folder) / "little", sizes[0]) as little,
            bed(Path(folder) / "much", sizes[1]) as much,
        ):
            await measure(little)  # statements are prepared, and pages read
            await measure(much)
            print(table(await measure(little), await measure(much)))


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--ended", type=int, default=MUCH.ended, help="jobs, where there is much")
    parser.add_argument("--waiting", type=int, default=MUCH.waiting, help="jobs that wait there")
    parser.add_argument("--tenants", type=int, default=MUCH.tenants, help="of these jobs")
    options = parser.parse_args()
    much = Size(options.ended, options.waiting, options.tenants)
    asyncio.run(run((LITTLE, much)))


if __name__ == "__main__":
    main()
