"""Jobs, tasks and events in Postgres.

One method is one transaction. Whatever changes a job locks its row first, so changes of one job
come one after another: revisions have no holes, and no two transactions wait for each other.
Tasks are only changed under their job's lock. Whoever holds one may be frozen: what is done for
many jobs leaves out those that are locked, and comes back to them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Range

from steno.job.domain import (
    AUDIO_DELETED,
    DEADLINE_EXCEEDED,
    SLICE_FAILED,
    Attempt,
    Audio,
    AudioRejected,
    AudioState,
    Failure,
    Job,
    JobError,
    JobFilter,
    JobNotFound,
    JobServiceError,
    NewJob,
    RequestId,
    RequestIdReused,
    RetryRules,
    SegmentsAdded,
    Slice,
    StaleLease,
    Standing,
    Task,
    TaskNotFound,
    TaskState,
    log,
)
from steno.job.messages import render_event
from steno.job.rows import (
    COLUMNS,
    JOB,
    SLICE,
    TASK,
    columns_of,
    job_of,
    new_columns_of,
    result_of,
    slice_of,
    standing_of,
    task_of,
)
from steno.platform.database import AWAY, Connection, Pool, every, one
from steno.platform.errors import Unavailable
from steno.platform.loops import Signal
from steno.platform.telemetry import trace_headers
from steno.platform.together import Together
from steno.transcript import Options, SliceTranscript, join_coverage, stitch

AT_ONCE = 50
"""Calls of one moment that share a transaction, at most."""

LOCKED_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between tries to have a job that somebody else changes."""

RESULTS_AT_ONCE = 50
"""Transcripts of slices that are read, or joined, in one go. More would hold up the event loop."""

MOST_SHARED_SLICES = 100
"""A job with more is made in a transaction of its own: others would wait for it."""

REMEMBER_REQUEST = """
INSERT INTO job.request_ids (tenant, method, request_id, body_sha256, job_id)
VALUES (%(tenant)s, %(method)s, %(request_id)s, %(body_sha256)s, %(job_id)s)
ON CONFLICT DO NOTHING
RETURNING job_id
"""

FIND_REQUEST = """
SELECT job_id, body_sha256 FROM job.request_ids
WHERE tenant = %(tenant)s AND method = %(method)s AND request_id = %(request_id)s
"""

# A line of which nothing was started stands where its first task waits.
CLOCKS = """
SELECT clock_timestamp() AS now, line.tenant, line.model, line.priority, coalesce((
    SELECT max(turn) FROM job.tasks
    WHERE tenant = line.tenant AND model = line.model AND priority = line.priority
        AND (state = 'LEASED' OR (state = 'PENDING' AND message_sequence IS NOT NULL))
), (
    SELECT min(turn) FROM job.tasks
    WHERE tenant = line.tenant AND model = line.model AND priority = line.priority
        AND state = 'PENDING' AND released AND message_sequence IS NULL
), 0) AS turn
FROM unnest(%(tenants)s::text[], %(models)s::text[], %(priorities)s::smallint[])
    AS line (tenant, model, priority)
"""

INSERT_JOB = f"""
INSERT INTO job.jobs ({", ".join(COLUMNS)}, trace)
VALUES ({", ".join(f"%({name})s" for name in COLUMNS)}, %(trace)s)
"""

GET_JOB = f"SELECT {JOB} FROM job.jobs WHERE job_id = %(job_id)s"

LOCK_JOB = f"""
SELECT {JOB}, clock_timestamp() AS now FROM job.jobs
WHERE job_id = %(job_id)s FOR UPDATE
"""

LOCK_JOB_IF_FREE = LOCK_JOB.rstrip() + " SKIP LOCKED"

JOB_EXISTS = "SELECT FROM job.jobs WHERE job_id = %(job_id)s"

JOB_OF_TASK = "SELECT job_id FROM job.tasks WHERE task_id = %(task_id)s"

SAVE_JOB = """
UPDATE job.jobs SET
    state = %(state)s, error_reason = %(error_reason)s, error_message = %(error_message)s,
    audio_state = %(audio_state)s, audio_truncated = %(audio_truncated)s,
    language_code = %(language_code)s, revision = %(revision)s, progress = %(progress)s,
    sample_count = %(sample_count)s, transcribed_sample_count = %(transcribed_sample_count)s,
    task_count = %(task_count)s, joined_count = %(joined_count)s,
    segment_count = %(segment_count)s, speech_sample_count = %(speech_sample_count)s,
    silence_sample_count = %(silence_sample_count)s, gap_sample_count = %(gap_sample_count)s,
    failed_count = %(failed_count)s, start_time = %(start_time)s, end_time = %(end_time)s,
    update_time = %(update_time)s, turn = %(turn)s
WHERE job_id = %(job_id)s
"""

LOAD = """
SELECT
    count(*) AS jobs,
    coalesce(sum(sample_count - transcribed_sample_count), 0)::bigint AS samples,
    count(*) FILTER (WHERE tenant = %(tenant)s) AS tenant_jobs,
    coalesce(sum(sample_count - transcribed_sample_count)
        FILTER (WHERE tenant = %(tenant)s), 0)::bigint AS tenant_samples
FROM job.jobs WHERE state IN ('QUEUED', 'RUNNING')
"""

DELETE_JOB = "DELETE FROM job.jobs WHERE job_id = %(job_id)s"

OLD_JOBS = """
SELECT job_id FROM job.jobs
WHERE end_time < now() - %(age)s AND job_id <> ALL(%(aside)s::uuid[])
ORDER BY end_time LIMIT %(limit)s
"""

LIST_JOBS = f"""
SELECT {JOB} FROM job.jobs
WHERE tenant = %(tenant)s
    AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
    AND labels @> %(labels)s
    AND (%(create_time_from)s::timestamptz IS NULL OR create_time >= %(create_time_from)s)
    AND (%(create_time_to)s::timestamptz IS NULL OR create_time < %(create_time_to)s)
    AND (%(before_time)s::timestamptz IS NULL
        OR (create_time, job_id) < (%(before_time)s, %(before_job_id)s))
ORDER BY create_time DESC, job_id DESC
LIMIT %(limit)s
"""

# How much is ahead of a job, how fast a slice is done, and how many are done at once. Leases
# count as busy while a worker only prefetches, and so does the time that a slice takes: the two
# together give what the workers really do.
#
# What is on its way to the workers goes before all else, in the order of its messages. Of the rest,
# a job occupies its tenant's clock from its next turn to its last, and when that comes each other
# job of its tenant and priority has had what of it lies before: with slopes of 1 and -1 at the two
# ends of each job, the sum of what all have had at a turn is turn * sum(slope) - sum(slope * turn).
# By then each other tenant has had as much, or all that it wants.
STANDINGS = f"""
WITH messages AS (
    SELECT job_id, model, message_sequence, sample_count - transcribed_sample_count AS samples
    FROM job.tasks WHERE state = 'LEASED'
    UNION ALL
    SELECT job_id, model, message_sequence, sample_count - transcribed_sample_count
    FROM job.tasks WHERE state = 'PENDING' AND message_sequence IS NOT NULL
), sent AS (
    SELECT job_id, sum(samples) AS samples, max(until) AS sent_until
    FROM (
        SELECT job_id, samples,
            sum(samples) OVER (PARTITION BY model ORDER BY message_sequence NULLS FIRST) AS until
        FROM messages
    ) AS in_order
    GROUP BY job_id
), line AS (
    SELECT
        job_id, model, priority, tenant, state, turn, sent.samples AS sent, sent_until,
        greatest(0, sample_count - transcribed_sample_count - coalesce(sent.samples, 0))
            AS left_count,
        row_number() OVER (
            PARTITION BY model, state
            ORDER BY priority, turn - sample_count + transcribed_sample_count, create_time, job_id
        ) AS place
    FROM job.jobs LEFT JOIN sent USING (job_id)
    WHERE state IN ('QUEUED', 'RUNNING') AND (not_before IS NULL OR not_before <= now())
), ends AS (
    SELECT job_id, model, priority, tenant, turn - left_count AS turn, 1 AS slope FROM line
    UNION ALL SELECT job_id, model, priority, tenant, turn, -1 FROM line
), had AS (
    SELECT job_id, slope, turn * sum(slope) OVER by_then - sum(slope * turn) OVER by_then AS samples
    FROM ends
    WINDOW by_then AS (PARTITION BY model, priority, tenant ORDER BY turn)
), wanted AS (
    SELECT model, priority, tenant, sum(left_count) AS samples
    FROM line GROUP BY model, priority, tenant
), before AS (
    SELECT model, priority, sum(sum(left_count)) OVER higher AS samples,
        sum(sum(sent)) OVER (PARTITION BY model) AS sent
    FROM line GROUP BY model, priority
    WINDOW higher AS (
        PARTITION BY model ORDER BY priority ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
), speed AS (
    SELECT model, samples_per_second * greatest(1, busy) AS samples_per_second
    FROM (SELECT DISTINCT model FROM line) AS models,
    LATERAL (
        SELECT count(*) AS busy FROM job.tasks
        WHERE model = models.model AND state = 'LEASED' AND lease_expire_time > now()
    ) AS leases,
    LATERAL (
        SELECT sum(sample_count) / nullif(sum(extract(epoch FROM end_time - lease_time)), 0)
            AS samples_per_second
        FROM (
            SELECT sample_count, lease_time, end_time FROM job.tasks
            WHERE model = models.model AND state = 'DONE' AND lease_time IS NOT NULL
            ORDER BY end_time DESC LIMIT 32
        ) AS last_done
    ) AS measured
)
SELECT
    {JOB},
    CASE WHEN jobs.state = 'QUEUED' THEN line.place - 1 END AS queue_position,
    (CASE
        WHEN left_count = 0 AND sent_until IS NOT NULL THEN sent_until
        ELSE coalesce(before.sent, 0) + coalesce(before.samples, 0) + had.samples + others.samples
    END / nullif(samples_per_second, 0))::double precision AS remaining_seconds,
    retried_count, slice_index, failure_count, last_error, next_attempt_time
FROM job.jobs
LEFT JOIN line USING (job_id)
LEFT JOIN had ON had.job_id = jobs.job_id AND had.slope = -1
LEFT JOIN before ON before.model = line.model AND before.priority = line.priority
LEFT JOIN LATERAL (
    SELECT coalesce(sum(least(wanted.samples, had.samples)), 0) AS samples FROM wanted
    WHERE wanted.model = line.model AND wanted.priority = line.priority
        AND wanted.tenant <> line.tenant
) AS others ON true
LEFT JOIN speed ON speed.model = line.model
LEFT JOIN LATERAL (
    SELECT count(*) OVER () AS retried_count, slice_index, failure_count, last_error,
        next_attempt_time
    FROM job.tasks
    WHERE tasks.job_id = jobs.job_id AND failure_count > 0 AND tasks.state IN ('PENDING', 'LEASED')
    ORDER BY failure_count DESC, slice_index LIMIT 1
) AS retried ON true
WHERE jobs.job_id = ANY(%(job_ids)s)
"""

INSERT_EVENTS = """
INSERT INTO job.events (job_id, revision, payload)
SELECT %(job_id)s, revision, payload
FROM unnest(%(revisions)s::bigint[], %(payloads)s::bytea[]) AS event (revision, payload)
"""

EVENTS_AFTER = """
SELECT payload FROM job.events
WHERE job_id = %(job_id)s AND revision > %(revision)s
ORDER BY revision LIMIT %(limit)s
"""

EVENTS_FROM = """
SELECT told.job_id, events.revision, payload
FROM unnest(%(job_ids)s::uuid[], %(revisions)s::bigint[]) AS told (job_id, revision), LATERAL (
    SELECT revision, payload FROM job.events
    WHERE job_id = told.job_id AND revision >= told.revision
    ORDER BY revision LIMIT %(limit)s
) AS events
ORDER BY told.job_id, events.revision
"""

INSERT_TASK = """
INSERT INTO job.tasks
    (tenant, job_id, model, slice_index, start_sample, sample_count, speech_sample_count,
     left_context_sample_count, right_context_sample_count, context_object_key, gaps, object_key,
     released, priority, turn)
VALUES
    (%(tenant)s, %(job_id)s, %(model)s, %(slice_index)s, %(start_sample)s, %(sample_count)s,
     %(speech_sample_count)s, %(left_context_sample_count)s, %(right_context_sample_count)s,
     %(context_object_key)s, %(gaps)s, %(object_key)s, %(released)s, %(priority)s, %(turn)s)
"""

COPY_DONE_TASKS = """
INSERT INTO job.tasks
    (tenant, job_id, model, slice_index, start_sample, sample_count, speech_sample_count,
     left_context_sample_count, right_context_sample_count, context_object_key, gaps, object_key,
     state, transcribed_sample_count, result, end_time)
SELECT tenant, %(job_id)s, model, slice_index, start_sample, sample_count, speech_sample_count,
    left_context_sample_count, right_context_sample_count, context_object_key, gaps, object_key,
    state, transcribed_sample_count, result, end_time
FROM job.tasks WHERE job_id = %(retry_of_job_id)s AND state = 'DONE'
RETURNING slice_index, sample_count
"""

LOCK_FREE_JOBS_OF_TASKS = f"""
SELECT {JOB}, clock_timestamp() AS now FROM job.jobs
WHERE job_id IN (SELECT job_id FROM job.tasks WHERE task_id = ANY(%(task_ids)s))
FOR UPDATE SKIP LOCKED
"""

GET_TASKS = f"SELECT {TASK} FROM job.tasks WHERE task_id = ANY(%(task_ids)s)"

# A task that is PENDING again needs a new message: its old one may be gone.
SAVE_TASK = """
UPDATE job.tasks SET
    state = %(state)s, attempt = %(attempt)s,
    failure_count = %(failure_count)s, failures = %(failures)s,
    next_attempt_time = %(next_attempt_time)s, last_error = %(last_error)s,
    worker_id = %(worker_id)s, lease_request_id = %(lease_request_id)s,
    transcribed_sample_count = %(transcribed_sample_count)s,
    result = coalesce(%(result)s, result),
    lease_time = CASE WHEN attempt < %(attempt)s THEN clock_timestamp() ELSE lease_time END,
    lease_expire_time = CASE WHEN %(state)s = 'LEASED' THEN clock_timestamp() + %(lease)s END,
    end_time = CASE WHEN %(state)s IN ('DONE', 'FAILED') THEN clock_timestamp() END,
    message_sequence = CASE WHEN %(state)s <> 'PENDING' THEN message_sequence END
WHERE task_id = %(task_id)s
"""

CANCEL_TASKS = """
UPDATE job.tasks SET state = 'CANCELLED', end_time = clock_timestamp(), lease_expire_time = NULL
WHERE job_id = %(job_id)s AND state IN ('PENDING', 'LEASED')
"""

RELEASE_TASKS = """
UPDATE job.tasks SET released = true
WHERE job_id = %(job_id)s AND slice_index <= %(last_index)s AND NOT released
    AND state = 'PENDING'
"""

ENDED_TASKS = f"""
SELECT {SLICE}, result FROM job.tasks
WHERE job_id = %(job_id)s AND state IN ('DONE', 'FAILED') AND slice_index >= %(first_index)s
ORDER BY slice_index LIMIT %(limit)s
"""

# Their next slice has ended, and nobody has gone on from there.
UNJOINED_JOBS = """
SELECT job_id FROM job.jobs JOIN job.tasks USING (job_id)
WHERE jobs.state IN ('QUEUED', 'RUNNING') AND joined_count < task_count
    AND slice_index = joined_count AND tasks.state IN ('DONE', 'FAILED')
    AND job_id <> ALL(%(aside)s::uuid[])
LIMIT %(limit)s
"""

JOINED_RESULTS = f"""
SELECT {SLICE}, result FROM job.tasks
WHERE job_id = %(job_id)s AND slice_index >= %(first_index)s AND slice_index < %(end_index)s
ORDER BY slice_index
"""

PAST_LEASES = """
SELECT task_id, attempt FROM job.tasks
WHERE state = 'LEASED' AND lease_expire_time < clock_timestamp()
    AND task_id <> ALL(%(aside)s::uuid[])
ORDER BY lease_expire_time LIMIT %(limit)s
"""

LATE_JOBS = """
SELECT job_id FROM job.jobs
WHERE state IN ('QUEUED', 'RUNNING') AND deadline < clock_timestamp()
    AND job_id <> ALL(%(aside)s::uuid[])
ORDER BY deadline LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs have not ended, and how many samples of them are still to be done.

    Of all tenants, and of one.
    """

    jobs: int
    samples: int
    tenant_jobs: int
    tenant_samples: int


@dataclass(frozen=True, slots=True)
class Leased:
    """What a worker gets with a lease."""

    task: Task
    config: Options
    language_code: str
    lease: timedelta


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker learns when it renews a lease."""

    cancelled: bool
    language_code: str


@dataclass(frozen=True, slots=True)
class Joined:
    """What is transcribed of a job.

    Attributes:
        job: the job.
        results: its slices from the start up to the first that is not done, each with what its
            worker sent, or None where it was left out.
    """

    job: Job
    results: Sequence[tuple[Slice, bytes | None]]


class JobLocked(Exception):
    """Somebody else changes the job just now."""


@dataclass(slots=True)
class _Change:
    """A job that is locked, or new: set `job` to what it becomes, and `attempt` with a lease."""

    db: Connection
    before: Job | None
    job: Job
    now: datetime
    trace: Mapping[str, str] = field(default_factory=dict)
    added: list[SegmentsAdded] = field(default_factory=list)
    attempt: Attempt | None = None


class _Call(NamedTuple):
    """What is said of a task, such as by its worker.

    Attributes:
        task_id: the task.
        attempt: the lease that the caller holds, if it needs one.
        apply: changes the job, which is locked, and the task. What it raises, it raises first.
        context: the caller's, for the log lines that belong to its trace.
    """

    task_id: UUID
    attempt: int | None
    apply: Callable[[_Change, Task], Awaitable[Any]]
    context: Context

    @property
    def missing(self) -> Exception:
        """Whoever has a lease on a task that is gone learns that the lease is."""
        if self.attempt is None:
            return TaskNotFound(self.task_id)
        return StaleLease(self.task_id, self.attempt)


class _Creation(NamedTuple):
    """A job that is to be made, the caller's context, and the trace that the job belongs to."""

    new: NewJob
    audio: Audio
    request: RequestId | None
    context: Context
    trace: Mapping[str, str]


class _Made(NamedTuple):
    """What a job was and what it has become, the context of the call that did it, and its lease."""

    before: Job | None
    after: Job
    context: Context
    attempt: Attempt | None = None


def _creation(new: NewJob, audio: Audio, request: RequestId | None) -> _Creation:
    return _Creation(new, audio, request, copy_context(), trace_headers())


def _line_of(new: NewJob | Job) -> tuple[str, str, int]:
    """Those who stand in one line: tenant, model, priority."""
    return new.tenant, new.config.model, int(new.priority)


class Store:
    """The jobs. Raises JobNotFound and TaskNotFound for ids that are not there."""

    def __init__(
        self,
        pool: Pool,
        lease: timedelta,
        retry_rules: RetryRules,
        committed: Callable[[Job | None, Job], None] = lambda before, after: None,
        attempted: Callable[[Job, Attempt], None] = lambda job, attempt: None,
    ) -> None:
        """Takes the pool and the rules of leases.

        Args:
            pool: of connections.
            lease: silence after which a task is taken from its worker.
            retry_rules: how long a task is tried.
            committed: called after each change of a job, with what it was and what it became.
            attempted: called after a lease of a job's task began or ended; not if the job ended
                before it.
        """
        self._pool = pool
        self._lease = lease
        self._retry_rules = retry_rules
        self._committed = committed
        self._attempted = attempted
        self.unjoined = Signal()
        """Called when a job has more slices to be joined than were joined at once."""
        self._create_together = Together(self._create_each, AT_ONCE, AWAY)
        self._work_together = Together(self._work_on, AT_ONCE, AWAY)

    # Jobs

    async def find(self, request: RequestId) -> Job | None:
        """Returns the job that a call made, if it was made before.

        Raises:
            RequestIdReused: with another body.
        """
        async with self._pool.connection() as db:
            return await self._find(db, request)

    async def create(self, new: NewJob, audio: Audio, request: RequestId | None) -> Job:
        """Makes a job with a task for each slice there is. A repeat answers the job it made.

        As a retry of another job it takes over what that one has done.

        Raises:
            RequestIdReused: the request_id was used with another body.
        """
        if len(audio.slices) > MOST_SHARED_SLICES:
            [job] = await self.create_all([(new, audio, request)])
            return job
        return await self._create_together(_creation(new, audio, request))

    async def create_all(
        self, wanted: Sequence[tuple[NewJob, Audio, RequestId | None]]
    ) -> list[Job]:
        """Makes several jobs in one transaction, all or none; see `create`."""
        if not wanted:
            return []
        async with self._pool.transaction() as db:
            jobs, made = await self._create(db, [_creation(*each) for each in wanted])
            for job in jobs:
                if isinstance(job, Exception):
                    raise job
        self._tell(made)
        return [job for job in jobs if isinstance(job, Job)]

    async def get(self, job_id: UUID) -> Job:
        """Returns a job."""
        async with self._pool.connection() as db:
            row = await one(db, GET_JOB, job_id=job_id)
        if row is None:
            raise JobNotFound(job_id)
        return job_of(row)

    async def page(
        self, where: JobFilter, limit: int, before: tuple[datetime, UUID] | None
    ) -> list[Job]:
        """Returns jobs, newest first.

        Args:
            where: which jobs.
            limit: most jobs to return.
            before: create_time and id of the last job of the page before.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                LIST_JOBS,
                tenant=where.tenant,
                states=[str(state) for state in where.states] or None,
                labels=Jsonb(dict(where.labels)),
                create_time_from=where.create_time_from,
                create_time_to=where.create_time_to,
                before_time=before and before[0],
                before_job_id=before and before[1],
                limit=limit,
            )
        return [job_of(row) for row in rows]

    async def standings(self, job_ids: Collection[UUID]) -> dict[UUID, Standing]:
        """Returns where jobs stand in the queue; without those that are gone."""
        async with self._pool.connection() as db:
            rows = await every(db, STANDINGS, job_ids=list(job_ids))
        return {row["job_id"]: standing_of(row) for row in rows}

    async def standing(self, job_id: UUID) -> Standing:
        """Returns where one job stands in the queue."""
        job = await self.get(job_id)
        if job.state.ended:
            return Standing(job)
        found = await self.standings([job_id])
        if job_id not in found:
            raise JobNotFound(job_id)
        return found[job_id]

    async def load(self, tenant: str) -> Load:
        """Returns how much there is to do, in all and for a tenant."""
        async with self._pool.connection() as db:
            row = await one(db, LOAD, tenant=tenant)
        assert row is not None
        return Load(**row)

    async def cancel(self, job_id: UUID) -> Job:
        """Ends a job and its tasks; what is done stays.

        Raises:
            JobEnded: it has succeeded or failed already.
        """
        async with self._changing(job_id) as change:
            change.job = change.job.cancelled(change.now)
            await change.db.execute(CANCEL_TASKS, {"job_id": job_id})
        return change.job

    async def delete(self, job_id: UUID, *, wait: bool = True) -> None:
        """Removes a job that has ended.

        Raises:
            JobNotEnded: it has not.
            JobLocked: somebody else changes the job just now, and that is not to be waited for.
        """
        async with self._changing(job_id, wait=wait) as change:
            change.job.check_deletable()
            await change.db.execute(DELETE_JOB, {"job_id": job_id})

    async def old(self, age: timedelta, limit: int, aside: Sequence[UUID]) -> list[UUID]:
        """Returns jobs that ended so long ago, the oldest first, without those left aside."""
        async with self._pool.connection() as db:
            rows = await every(db, OLD_JOBS, age=age, limit=limit, aside=list(aside))
        return [row["job_id"] for row in rows]

    async def joined(self, job: Job) -> Joined:
        """Returns what is transcribed of a job, as of when it was read."""
        results: list[tuple[Slice, bytes | None]] = []
        # They do not change any more. All at once, the event loop would stand still for long ones.
        for first in range(0, job.joined_count, RESULTS_AT_ONCE):
            last = min(first + RESULTS_AT_ONCE, job.joined_count)
            async with self._pool.connection() as db:
                rows = await self._joined_results(db, job.job_id, first, last)
            results += [(slice_of(row), row["result"]) for row in rows]
        if len(results) < job.joined_count:
            raise JobNotFound(job.job_id)  # deleted meanwhile
        return Joined(job, results)

    async def audio_changed(self, job_id: UUID, audio: Audio | None) -> None:
        """Takes in what the upload service says of a job's audio; None says it was deleted.

        Raises:
            JobLocked: somebody else changes the job just now.
        """
        async with self._changing(job_id, wait=False) as change:
            if not change.job.state.ended:
                await self._take_in(change, audio)

    # Events

    async def events_after(self, job_id: UUID, revision: int, limit: int) -> list[bytes]:
        """Returns a job's next events, in order, as JobEvents. A job that is gone has none."""
        async with self._pool.connection() as db:
            rows = await every(db, EVENTS_AFTER, job_id=job_id, revision=revision, limit=limit)
        return [row["payload"] for row in rows]

    async def events_from(
        self, revisions: Mapping[UUID, int], limit: int
    ) -> list[tuple[UUID, int, bytes]]:
        """Returns events of several jobs, each from a revision on, in order.

        Args:
            revisions: first revision, by job.
            limit: most events of each.

        Returns:
            Job, revision and JobEvent.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                EVENTS_FROM,
                job_ids=[*revisions],
                revisions=[*revisions.values()],
                limit=limit,
            )
        return [(row["job_id"], row["revision"], row["payload"]) for row in rows]

    # Tasks, for workers

    async def lease(self, task_id: UUID, worker_id: str, request_id: UUID | None) -> Leased:
        """Gives a task to a worker; the first one starts the job. A repeat gets the same lease.

        Raises:
            TaskLeased: another worker holds it.
            TaskNotPending: there is nothing to do.
        """

        async def apply(change: _Change, task: Task) -> Leased:
            leased = task.leased(worker_id, change.now, request_id)
            change.job = change.job.started(change.now)
            await self._save_task(change.db, leased)
            if leased is not task:
                change.attempt = Attempt(leased, change.now)
            return Leased(leased, change.job.config, change.job.language_code, self._lease)

        leased: Leased = await self._work(task_id, None, apply)
        return leased

    async def renew(
        self, task_id: UUID, attempt: int, sample_count: int, language_code: str
    ) -> Renewal:
        """Keeps a lease, and takes in progress and language.

        Raises:
            StaleLease: the lease has passed to another worker.
        """

        async def apply(change: _Change, task: Task) -> Renewal:
            task.check_lease(attempt, TaskState.LEASED, TaskState.DONE, TaskState.CANCELLED)
            if task.state is TaskState.LEASED:
                task = await self._advance(change, task, task.advanced(sample_count))
                await self._hear(change, language_code)
            return Renewal(task.state is TaskState.CANCELLED, change.job.language_code)

        renewal: Renewal = await self._work(task_id, attempt, apply)
        return renewal

    async def complete(
        self, task_id: UUID, attempt: int, language_code: str, result: bytes
    ) -> None:
        """Stores a slice's transcript and its events, or neither. A repeat changes nothing.

        Args:
            task_id: the task.
            attempt: token of the lease.
            language_code: that was found, or empty.
            result: a steno.v1.SliceTranscript.

        Raises:
            StaleLease: the lease has passed to another worker, or the task was cancelled.
        """

        async def apply(change: _Change, task: Task) -> None:
            task.check_lease(attempt, TaskState.LEASED, TaskState.DONE)
            if task.state is TaskState.DONE:
                return
            done = await self._advance(change, task, task.completed(), result)
            change.attempt = Attempt(done, change.now)
            await self._hear(change, language_code)
            await self._ended(change, task)

        await self._work(task_id, attempt, apply)

    async def fail(self, task_id: UUID, attempt: int, failure: Failure, message: str) -> None:
        """Takes a task back from its worker. A repeat changes nothing.

        Raises:
            StaleLease: the lease has passed to another worker, or the task was cancelled.
        """

        async def apply(change: _Change, task: Task) -> None:
            task.check_lease(attempt, TaskState.LEASED, TaskState.PENDING, TaskState.FAILED)
            if task.state is TaskState.LEASED:
                await self._give_back(change, task, failure, message)

        await self._work(task_id, attempt, apply)

    # Tasks, for the loops of this service

    async def unjoined_jobs(self, limit: int, aside: Sequence[UUID]) -> list[UUID]:
        """Returns jobs of which more slices can be joined, without those left aside."""
        async with self._pool.connection() as db:
            rows = await every(db, UNJOINED_JOBS, limit=limit, aside=list(aside))
        return [row["job_id"] for row in rows]

    async def join(self, job_id: UUID) -> None:
        """Makes the segments final of more slices.

        Raises:
            JobLocked: somebody else changes the job just now.
        """
        async with self._changing(job_id, wait=False) as change:
            if not change.job.state.ended:
                await self._join(change)
                change.job = change.job.settled(change.now)

    async def past_leases(self, limit: int, aside: Sequence[UUID]) -> list[tuple[UUID, int]]:
        """Returns tasks whose leases are past their time, with the attempt, the oldest first.

        Without those left aside.
        """
        async with self._pool.connection() as db:
            rows = await every(db, PAST_LEASES, limit=limit, aside=list(aside))
        return [(row["task_id"], row["attempt"]) for row in rows]

    async def expire(self, task_id: UUID, attempt: int) -> bool:
        """Takes a task back whose worker fell silent; returns whether it did.

        Nothing changes if the lease was renewed or has ended meanwhile. Workers' calls neither wait
        for it nor does it wait for them.

        Raises:
            JobLocked: somebody else changes the job just now.
        """
        async with self._pool.connection() as db:
            row = await one(db, JOB_OF_TASK, task_id=task_id)
        if row is None:
            return False  # deleted meanwhile
        given_back: Attempt | None = None
        with suppress(JobNotFound):
            async with self._changing(row["job_id"], wait=False) as change:
                for found in await every(change.db, GET_TASKS, task_ids=[task_id]):
                    task = task_of(found)
                    until = task.lease_expire_time
                    if task.attempt == attempt and until is not None and until < change.now:
                        message = f"worker {task.worker_id} fell silent"
                        await self._give_back(change, task, Failure.EXPIRED, message)
                given_back = change.attempt
        if given_back is not None:
            self._attempted(change.job, given_back)
        return given_back is not None

    async def late(self, limit: int, aside: Sequence[UUID]) -> list[UUID]:
        """Returns jobs that have not ended by their deadline, without those left aside."""
        async with self._pool.connection() as db:
            rows = await every(db, LATE_JOBS, limit=limit, aside=list(aside))
        return [row["job_id"] for row in rows]

    async def end_late(self, job_id: UUID) -> bool:
        """Fails a job whose deadline has passed; returns whether it did.

        One that has ended meanwhile stays as it is.

        Raises:
            JobLocked: somebody else changes the job just now.
        """
        async with self._changing(job_id, wait=False) as change:
            late = not change.job.state.ended
            if late:
                why = f"it had not ended by {change.job.deadline:%Y-%m-%d %H:%M:%S %Z}"
                await self._end(change, JobError(DEADLINE_EXCEEDED, why))
        return late

    # What the methods above are made of

    async def _create_each(self, wanted: Sequence[_Creation]) -> Sequence[Job | Exception]:
        """Makes jobs in one transaction, as far as they can be made."""
        async with self._pool.transaction() as db:
            jobs, made = await self._create(db, wanted)
        self._tell(made)
        return jobs

    async def _create(
        self, db: Connection, wanted: Sequence[_Creation]
    ) -> tuple[list[Job | Exception], list[_Made]]:
        """Returns a job for each call, and those that are new."""
        clock, now = await self._clocks(db, [each.new for each in wanted])
        jobs: dict[int, Job | Exception] = {}
        made = []
        # Two transactions that share request ids must not wait for each other.
        for place, each in sorted(enumerate(wanted), key=lambda each: str(each[1].request)):
            job_id = uuid4()
            if each.request is None or await self._remember(db, each.request, job_id):
                job = await self._insert(db, job_id, each, clock[_line_of(each.new)], now)
                jobs[place] = job
                made.append(_Made(None, job, each.context))
            else:
                jobs[place] = await self._found(db, each.request)
        return [jobs[place] for place in range(len(wanted))], made

    async def _insert(
        self, db: Connection, job_id: UUID, wanted: _Creation, clock: int, now: datetime
    ) -> Job:
        new, audio = wanted.new, wanted.audio
        created = new.made(job_id, audio.filename, clock, now)
        slices = created.new_slices(audio)
        turns: list[int] = []
        change = _Change(db, None, created.prepared(audio), now, wanted.trace)
        if new.retry_of_job_id is None:
            change.job, turns = change.job.queued(slices, clock)
        await self._save(change)
        # A second change, so that the log begins with the job and not with its end.
        change = _Change(db, change.job, change.job, now)
        if new.retry_of_job_id is not None:
            done = await self._copy_done(change)
            slices = [each for each in slices if each.index not in done]
            change.job, turns = change.job.queued(slices, clock)
            change.job = change.job.transcribed(sum(done.values()))
            await self._join(change)
        await self._add_tasks(change, slices, turns)
        change.job = change.job.settled(now)
        await self._save(change)
        return change.job

    async def _work(
        self,
        task_id: UUID,
        attempt: int | None,
        apply: Callable[[_Change, Task], Awaitable[Any]],
    ) -> Any:
        """Changes a task and its job under the job's lock. See `_Call`.

        Who holds the job may be frozen: it is waited for without a connection, and the calls of all
        other jobs go on.
        """
        call = _Call(task_id, attempt, apply, copy_context())
        for pause in LOCKED_PAUSES:
            with suppress(JobLocked):
                return await self._work_together(call)
            await asyncio.sleep(pause)
        raise Unavailable("somebody else changes the job; try again")

    async def _work_on(self, calls: Sequence[_Call]) -> Sequence[Any]:
        """Does calls in few transactions: in each, one call of each job."""
        answers: dict[int, Any] = {}
        left = dict(enumerate(calls))
        while left:
            try:
                answers |= await self._work_on_jobs(left)
            except Exception as error:
                if not answers:
                    raise
                # The others are done.
                if isinstance(error, AWAY):
                    answers |= dict.fromkeys(left, error)
                else:
                    answers |= await self._work_on_each(left)
            left = {place: call for place, call in left.items() if place not in answers}
        return [answers[place] for place in range(len(calls))]

    async def _work_on_each(self, calls: Mapping[int, _Call]) -> Mapping[int, Any]:
        """Does each call in a transaction of its own, since one of them spoils what they share."""
        answers: dict[int, Any] = {}
        for place, call in calls.items():
            try:
                answers |= await self._work_on_jobs({place: call})
            except Exception as error:
                answers[place] = error
        return answers

    async def _work_on_jobs(self, calls: Mapping[int, _Call]) -> Mapping[int, Any]:
        """Does at least the first of the calls; returns the answers to those that it did.

        It does not wait for jobs that somebody else holds: then JobLocked is the answer.
        """
        answers: dict[int, Any] = {}
        changed = []
        async with self._pool.transaction() as db:
            ids = {"task_ids": [call.task_id for call in calls.values()]}
            locked = await db.execute(LOCK_FREE_JOBS_OF_TASKS, ids)
            found = await db.execute(GET_TASKS, ids)
            await db.settle()
            tasks = {row["task_id"]: row for row in await found.fetchall()}
            jobs = {row["job_id"]: row for row in await locked.fetchall()}
            done = set()
            for place, call in calls.items():
                row = tasks.get(call.task_id)
                if row is not None and row["job_id"] in done:
                    continue
                if row is None:
                    answers[place] = call.missing
                    continue
                if row["job_id"] not in jobs:
                    answers[place] = JobLocked()
                    continue
                done.add(row["job_id"])
                change = self._change(db, jobs[row["job_id"]])
                try:
                    answers[place] = await call.apply(change, task_of(row))
                except JobServiceError as error:
                    answers[place] = error
                    continue
                await self._save(change)
                changed.append(_Made(change.before, change.job, call.context, change.attempt))
        self._tell(changed)
        return answers

    def _tell(self, changes: Sequence[_Made]) -> None:
        """Tells what is committed, each in its caller's context."""
        for before, after, context, attempt in changes:
            context.run(self._committed, before, after)
            if attempt is not None:
                self._attempted(after, attempt)

    @asynccontextmanager
    async def _changing(self, job_id: UUID, *, wait: bool = True) -> AsyncIterator[_Change]:
        """Locks a job; at the end of the block saves what it became, with its events."""
        async with self._pool.transaction() as db:
            row = await one(db, LOCK_JOB if wait else LOCK_JOB_IF_FREE, job_id=job_id)
            if row is None and not wait and await one(db, JOB_EXISTS, job_id=job_id) is not None:
                raise JobLocked
            if row is None:
                raise JobNotFound(job_id)
            change = self._change(db, row)
            yield change
            await self._save(change)
        self._committed(change.before, change.job)

    def _change(self, db: Connection, locked: DictRow) -> _Change:
        job = job_of(locked)
        # A transaction that waited for the lock must not write an older time.
        return _Change(db, job, job, max(locked["now"], job.update_time))

    async def _save(self, change: _Change) -> None:
        """Writes what a job became, if it changed, and the events between."""
        if change.job == change.before:
            return
        after = dataclasses.replace(change.job, update_time=change.now)
        change.job, changes = log(change.before, after, change.added)
        if change.before is None:
            values = new_columns_of(change.job) | {"trace": Jsonb(dict(change.trace))}
            await change.db.execute(INSERT_JOB, values)
        else:
            await change.db.execute(SAVE_JOB, columns_of(change.job))
        if not changes:
            return
        revisions = range(after.revision + 1, after.revision + 1 + len(changes))
        rendered = (
            render_event(after.job_id, revision, change.now, event)
            for revision, event in zip(revisions, changes, strict=True)
        )
        await change.db.execute(
            INSERT_EVENTS,
            {
                "job_id": after.job_id,
                "revisions": list(revisions),
                "payloads": [event.SerializeToString() for event in rendered],
            },
        )

    async def _remember(self, db: Connection, request: RequestId, job_id: UUID) -> bool:
        """Notes a call; answers whether it is new."""
        row = await one(db, REMEMBER_REQUEST, **dataclasses.asdict(request), job_id=job_id)
        return row is not None

    async def _found(self, db: Connection, request: RequestId) -> Job | RequestIdReused:
        """The job that was made for a call whose note is there."""
        try:
            job = await self._find(db, request)
        except RequestIdReused as error:
            return error
        assert job is not None, "the row that was in the way is there"
        return job

    async def _find(self, db: Connection, request: RequestId) -> Job | None:
        row = await one(db, FIND_REQUEST, **dataclasses.asdict(request))
        if row is None:
            return None
        if row["body_sha256"] != request.body_sha256:
            raise RequestIdReused(request.request_id)
        job = await one(db, GET_JOB, job_id=row["job_id"])
        return job_of(job) if job is not None else None

    async def _take_in(self, change: _Change, audio: Audio | None) -> None:
        """Adds the slices that are new, and ends the job if its audio can't be used."""
        if audio is None:
            await self._end(change, JobError(AUDIO_DELETED, "the audio was deleted"))
        elif audio.state is AudioState.REJECTED:
            await self._end(change, JobError(AudioRejected.reason, audio.rejection_message))
        else:
            new = change.job.new_slices(audio)
            change.job = change.job.prepared(audio)
            if new:
                clock = await self._clock(change)
                change.job, turns = change.job.queued(new, clock)
                await self._add_tasks(change, new, turns)
            change.job = change.job.settled(change.now)

    async def _add_tasks(
        self, change: _Change, slices: Sequence[Slice], turns: Sequence[int]
    ) -> None:
        if not slices:
            return
        job = change.job
        async with change.db.cursor() as cursor:
            await cursor.executemany(
                INSERT_TASK,
                [
                    {
                        "tenant": job.tenant,
                        "job_id": job.job_id,
                        "model": job.config.model,
                        "slice_index": piece.index,
                        "start_sample": piece.start_sample,
                        "sample_count": piece.sample_count,
                        "speech_sample_count": piece.speech_sample_count,
                        "left_context_sample_count": piece.left_context_sample_count,
                        "right_context_sample_count": piece.right_context_sample_count,
                        "context_object_key": piece.context_object_key,
                        "gaps": Int8Multirange([Range(gap.start, gap.end) for gap in piece.gaps]),
                        "object_key": piece.object_key,
                        "released": job.releases_all or piece.index == job.joined_count,
                        "priority": job.priority,
                        "turn": turn,
                    }
                    for piece, turn in zip(slices, turns, strict=True)
                ],
            )

    async def _clock(self, change: _Change) -> int:
        """See `_clocks`."""
        job = change.job
        [clock] = (await self._clocks(change.db, [job]))[0].values()
        return clock

    async def _clocks(
        self, db: Connection, jobs: Sequence[NewJob | Job]
    ) -> tuple[dict[tuple[str, str, int], int], datetime]:
        """The turn of what was started last in each job's line, and the time.

        While nothing of the line is on its way, it is the turn of what is started next, and 0
        while nothing waits either.
        """
        lines = sorted({_line_of(job) for job in jobs})
        tenants, models, priorities = zip(*lines, strict=True)
        rows = await every(
            db, CLOCKS, tenants=[*tenants], models=[*models], priorities=[*priorities]
        )
        clocks = {(row["tenant"], row["model"], row["priority"]): row["turn"] for row in rows}
        return clocks, rows[0]["now"]

    async def _copy_done(self, change: _Change) -> dict[int, int]:
        """Copies the tasks that the job before has done; returns their slices and lengths."""
        rows = await every(
            change.db,
            COPY_DONE_TASKS,
            job_id=change.job.job_id,
            retry_of_job_id=change.job.retry_of_job_id,
        )
        return {row["slice_index"]: row["sample_count"] for row in rows}

    async def _advance(
        self, change: _Change, task: Task, advanced: Task, result: bytes | None = None
    ) -> Task:
        more = advanced.transcribed_sample_count - task.transcribed_sample_count
        change.job = change.job.transcribed(more)
        await self._save_task(change.db, advanced, result)
        return advanced

    async def _hear(self, change: _Change, language_code: str) -> None:
        """Fixes the language, if it was still to be found, and lets all tasks go."""
        if language_code and not change.job.language_code:
            change.job = change.job.heard(language_code)
            await self._release(change, change.job.task_count)

    async def _ended(self, change: _Change, task: Task) -> None:
        """Nothing more is to be done for a task."""
        if task.slice.index == change.job.joined_count:
            await self._join(change)
        change.job = change.job.settled(change.now)

    async def _join(self, change: _Change) -> None:
        """Makes the segments final of slices that have ended and have no hole before them.

        There may be more of them than are joined at once, if the first one came last: `join` goes
        on.
        """
        job = change.job
        rows = await every(
            change.db,
            ENDED_TASKS,
            job_id=job.job_id,
            first_index=job.joined_count,
            limit=RESULTS_AT_ONCE,
        )
        before: SliceTranscript | None = None
        for row in rows:
            if row["slice_index"] != change.job.joined_count:
                break
            found = result_of(row)
            if found.left_context and before is None:
                [last] = await self._joined_results(
                    change.db, job.job_id, job.joined_count - 1, job.joined_count
                )
                before = result_of(last)
            segments = stitch(
                [found],
                first_index=change.job.segment_count,
                before=before,
                words=job.config.word_time_offsets,
            )
            before = found
            if segments:
                change.added.append(SegmentsAdded(segments))
            change.job = change.job.joined(len(segments), join_coverage([found]))
        if change.job.joined_count == job.joined_count + RESULTS_AT_ONCE:
            self.unjoined()
        if not change.job.releases_all and change.job.joined_count < change.job.task_count:
            await self._release(change, change.job.joined_count)

    async def _joined_results(
        self, db: Connection, job_id: UUID, first_index: int, end_index: int
    ) -> Sequence[DictRow]:
        return await every(
            db, JOINED_RESULTS, job_id=job_id, first_index=first_index, end_index=end_index
        )

    async def _release(self, change: _Change, last_index: int) -> None:
        await change.db.execute(
            RELEASE_TASKS, {"job_id": change.job.job_id, "last_index": last_index}
        )

    async def _give_back(self, change: _Change, task: Task, failure: Failure, message: str) -> None:
        task = task.given_back(failure, message, change.now, self._retry_rules)
        await self._save_task(change.db, task)
        change.attempt = Attempt(task, change.now, failure)
        if task.state is not TaskState.FAILED:
            return
        why = f"slice {task.slice.index} could not be transcribed: {task.last_error}"
        error = JobError(SLICE_FAILED, why)
        # What is asked of the model, and can't be done, can't be done for any slice.
        if change.job.allow_gaps and failure is not Failure.PERMANENT:
            left = task.slice.sample_count - task.transcribed_sample_count
            change.job = change.job.left_out(error).transcribed(left)
            await self._ended(change, task)
        else:
            await self._end(change, error)

    async def _end(self, change: _Change, error: JobError) -> None:
        change.job = change.job.failed(error, change.now)
        await change.db.execute(CANCEL_TASKS, {"job_id": change.job.job_id})

    async def _save_task(self, db: Connection, task: Task, result: bytes | None = None) -> None:
        await db.execute(
            SAVE_TASK,
            {
                "task_id": task.task_id,
                "state": task.state,
                "attempt": task.attempt,
                "failure_count": task.failure_count,
                "failures": task.failures,
                "next_attempt_time": task.next_attempt_time,
                "lease_request_id": task.lease_request_id,
                "last_error": task.last_error,
                "worker_id": task.worker_id,
                "transcribed_sample_count": task.transcribed_sample_count,
                "result": result,
                "lease": self._lease,
            },
        )
