"""What must go out of Postgres: events and tasks to NATS, questions to the upload service.

Nothing here changes a job. Replicas take different rows, without waiting for each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from steno.platform.database import Pool, every, one

UNPUBLISHED_EVENTS = """
SELECT job_id, revision, payload FROM job.events
WHERE NOT published AND (job_id, revision) NOT IN (
    SELECT aside.job_id, aside.revision
    FROM unnest(%(job_ids_aside)s::uuid[], %(revisions_aside)s::bigint[])
        AS aside (job_id, revision)
)
ORDER BY create_time, job_id, revision LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

MARK_PUBLISHED = """
UPDATE job.events SET published = true
FROM unnest(%(job_ids)s::uuid[], %(revisions)s::bigint[]) AS sent (job_id, revision)
WHERE events.job_id = sent.job_id AND events.revision = sent.revision
"""

# The work queue keeps the order in which messages came, so what comes later can't go before. It
# holds only what the workers take in a moment: as much as they have done in the last seconds. The
# rest waits here, in the order of priorities, tenants and turns: of one priority, the tenant goes
# first who has had the least audio of what is on its way or was done a little while ago. Of that,
# each priority has its share as long as it has work: what begins within it goes before all else,
# however long it is. Not materialized, or all that is due is copied where only each tenant's first
# rows of the index count.
DUE_TASKS = """
WITH RECURSIVE due AS NOT MATERIALIZED (
    SELECT task_id, job_id, model, tenant, priority, turn, slice_index, sample_count, attempt,
        dispatch_count
    FROM job.tasks
    WHERE state = 'PENDING' AND released AND message_sequence IS NULL
        AND (next_attempt_time IS NULL OR next_attempt_time <= now())
        AND task_id <> ALL(%(aside)s::uuid[])
), models AS (
    SELECT min(model) AS model FROM due
    UNION ALL
    SELECT (SELECT min(model) FROM due WHERE due.model > models.model)
    FROM models WHERE model IS NOT NULL
), room AS (
    SELECT model, greatest(0, greatest(%(least_waiting)s, done) - waiting) AS room
    FROM models,
    LATERAL (
        SELECT count(*) AS waiting FROM job.tasks
        WHERE model = models.model AND state = 'PENDING' AND message_sequence IS NOT NULL
    ) AS waiting,
    LATERAL (
        SELECT count(*) AS done FROM job.tasks
        WHERE model = models.model AND state = 'DONE' AND lease_time IS NOT NULL
            AND end_time > now() - %(moment)s
    ) AS done
    WHERE model IS NOT NULL
), had AS (
    SELECT model, tenant, priority, sum(sample_count) AS samples FROM (
        SELECT model, tenant, priority, sample_count FROM job.tasks WHERE state = 'LEASED'
        UNION ALL
        SELECT model, tenant, priority, sample_count FROM job.tasks
        WHERE state = 'PENDING' AND message_sequence IS NOT NULL
        UNION ALL
        SELECT tasks.model, tenant, priority, sample_count FROM room JOIN job.tasks
            ON tasks.model = room.model AND state = 'DONE' AND lease_time IS NOT NULL
                AND end_time > now() - %(a_while)s
    ) AS tasks GROUP BY model, tenant, priority
), had_by_tenant AS (
    SELECT model, tenant, sum(samples) AS samples FROM had GROUP BY model, tenant
), had_by_priority AS (
    SELECT model, priority, sum(samples) AS samples FROM had GROUP BY model, priority
), share AS (
    SELECT model, sum(samples) * %(least_share)s AS samples FROM had GROUP BY model
), next AS (
    SELECT task_id, job_id, room.model, first.tenant, first.priority, turn, slice_index,
        sample_count, attempt, dispatch_count, trace,
        sum(sample_count) OVER (
            PARTITION BY room.model, first.tenant
            ORDER BY first.priority, turn, slice_index ROWS UNBOUNDED PRECEDING
        ) - sample_count AS before
    FROM room JOIN LATERAL (
        SELECT DISTINCT tenant FROM job.jobs
        WHERE model = room.model AND state IN ('QUEUED', 'RUNNING')
    ) AS tenants ON true, (VALUES (1), (2), (3)) AS priorities (priority), LATERAL (
        SELECT task_id, due.job_id, due.tenant, due.priority, due.turn, slice_index,
            due.sample_count, attempt, dispatch_count, trace
        FROM due JOIN job.jobs ON jobs.job_id = due.job_id
        WHERE due.model = room.model AND due.tenant = tenants.tenant
            AND due.priority = priorities.priority
            AND (not_before IS NULL OR not_before <= now())
        ORDER BY due.turn, due.slice_index LIMIT room.room
    ) AS first
), in_order AS (
    SELECT task_id, job_id, next.model, priority, turn, slice_index, attempt, dispatch_count, trace,
        coalesce(had_by_tenant.samples, 0) + before AS tenant_had,
        sum(sample_count) OVER (
            PARTITION BY next.model, priority
            ORDER BY coalesce(had_by_tenant.samples, 0) + before, turn, slice_index
            ROWS UNBOUNDED PRECEDING
        ) - sample_count AS had_before
    FROM next LEFT JOIN had_by_tenant USING (model, tenant)
), placed AS (
    SELECT task_id, job_id, model, priority, attempt, dispatch_count, trace,
        row_number() OVER (
            PARTITION BY model
            ORDER BY
                coalesce(had_by_priority.samples, 0) + had_before >= coalesce(share.samples, 0),
                priority, tenant_had, turn, slice_index
        ) AS place
    FROM in_order LEFT JOIN had_by_priority USING (model, priority) LEFT JOIN share USING (model)
)
SELECT task_id, job_id, placed.model, priority, attempt, dispatch_count, trace
FROM placed JOIN room ON room.model = placed.model AND place <= room.room
ORDER BY place LIMIT %(limit)s
"""

# A lease that came and went since the task was read has outdated the message. A task that is being
# changed is left out, for it could be a deadlock to wait; it is sent again, under the same id.
MARK_DISPATCHED = """
WITH free AS MATERIALIZED (
    SELECT task_id FROM job.tasks WHERE task_id = ANY(%(task_ids)s) FOR UPDATE SKIP LOCKED
)
UPDATE job.tasks SET
    dispatch_count = tasks.dispatch_count + 1,
    message_sequence = CASE WHEN tasks.attempt = sent.attempt THEN sent.sequence END,
    message_check_time = now()
FROM free JOIN unnest(
    %(task_ids)s::uuid[], %(attempts)s::integer[], %(counts)s::integer[], %(sequences)s::bigint[]
) AS sent (task_id, attempt, dispatch_count, sequence) USING (task_id)
WHERE tasks.task_id = sent.task_id AND tasks.dispatch_count = sent.dispatch_count
"""

CLAIM_MESSAGES_TO_CHECK = """
UPDATE job.tasks SET message_check_time = now()
WHERE task_id IN (
    SELECT task_id FROM job.tasks
    WHERE state = 'PENDING' AND message_sequence IS NOT NULL
        AND message_check_time < now() - %(age)s
    ORDER BY message_check_time LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
RETURNING task_id, message_sequence
"""

FORGET_MESSAGE = """
UPDATE job.tasks SET message_sequence = NULL
WHERE task_id = %(task_id)s AND message_sequence = %(sequence)s AND state = 'PENDING'
"""

CLAIM_AUDIO_TO_CHECK = """
UPDATE job.jobs SET audio_check_time = now()
WHERE job_id IN (
    SELECT job_id FROM job.jobs
    WHERE state IN ('QUEUED', 'RUNNING') AND audio_check_time < now() -
        CASE audio_state WHEN 'PREPARING' THEN %(preparing_age)s ELSE %(ready_age)s END
    ORDER BY audio_check_time LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
RETURNING job_id, audio_id, task_count
"""

JOBS_OF_AUDIO = """
SELECT job_id, audio_id, task_count FROM job.jobs
WHERE audio_id = %(audio_id)s AND state IN ('QUEUED', 'RUNNING')
"""

STATISTICS = """
SELECT
    (SELECT coalesce(jsonb_object_agg(state, count), '{}') FROM (
        SELECT state, count(*) FROM job.jobs
        WHERE state IN ('QUEUED', 'RUNNING') GROUP BY state) AS by_state) AS jobs,
    (SELECT coalesce(jsonb_object_agg(state, count), '{}') FROM (
        SELECT state, count(*) FROM job.tasks
        WHERE state IN ('PENDING', 'LEASED') GROUP BY state) AS by_state) AS tasks,
    (SELECT coalesce(jsonb_object_agg(model, seconds), '{}') FROM (
        SELECT model, sum(sample_count - transcribed_sample_count) / 16000 AS seconds
        FROM job.jobs
        WHERE state IN ('QUEUED', 'RUNNING') AND (not_before IS NULL OR not_before <= now())
        GROUP BY model) AS by_model) AS queued,
    (SELECT coalesce(extract(epoch FROM now() -
            min(greatest(tasks.create_time, not_before, next_attempt_time))), 0)::double precision
        FROM job.tasks JOIN job.jobs USING (job_id)
        WHERE tasks.state = 'PENDING' AND (not_before IS NULL OR not_before <= now())
            AND (next_attempt_time IS NULL OR next_attempt_time <= now())
    ) AS oldest_task,
    (SELECT count(*) FROM job.tasks
        WHERE state = 'PENDING' AND failure_count > 0 AND next_attempt_time > now()
    ) AS parked_tasks,
    (SELECT coalesce(extract(epoch FROM now() - min(create_time)), 0)::double precision
        FROM job.events WHERE NOT published) AS outbox_lag
"""


@dataclass(frozen=True, slots=True)
class UnpublishedEvent:
    """A row of the event log that NATS has not got; `payload` is a JobEvent."""

    job_id: UUID
    revision: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DueTask:
    """A task that needs a message in the work queue.

    `dispatch_count` messages came before; `trace` holds the headers of the call that made the job.
    """

    task_id: UUID
    job_id: UUID
    model: str
    priority: int
    attempt: int
    dispatch_count: int
    trace: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AudioToCheck:
    """A job whose audio may have changed, and how many of its slices the job knows."""

    job_id: UUID
    audio_id: UUID
    task_count: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much there is.

    Attributes:
        jobs: number of jobs that have not ended, by state.
        tasks: number of tasks that have not ended, by state.
        queued: seconds of audio that wait and may be done, by model.
        oldest_task: seconds for which a task waits for a worker, of the one that does so longest.
        parked_tasks: number of tasks that wait for their next try.
        outbox_lag: age in seconds of the oldest event that NATS has not got.
    """

    jobs: dict[str, int]
    tasks: dict[str, int]
    queued: dict[str, float]
    oldest_task: float
    parked_tasks: int
    outbox_lag: float


class Outbox:
    """The rows that somebody else must learn of, and the marks that they have."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def unpublished(
        self, limit: int, aside: Sequence[tuple[UUID, int]] = ()
    ) -> AsyncIterator[tuple[Sequence[UnpublishedEvent], list[UnpublishedEvent]]]:
        """Hands out events that NATS has not got, and a list for those that it has got then.

        Another replica gets others meanwhile.

        Args:
            limit: most events.
            aside: job and revision of events to leave out.
        """
        async with self._pool.transaction() as db:
            rows = await every(
                db,
                UNPUBLISHED_EVENTS,
                limit=limit,
                job_ids_aside=[job_id for job_id, _ in aside],
                revisions_aside=[revision for _, revision in aside],
            )
            sent: list[UnpublishedEvent] = []
            yield [UnpublishedEvent(**row) for row in rows], sent
            if sent:
                marked = {
                    "job_ids": [event.job_id for event in sent],
                    "revisions": [event.revision for event in sent],
                }
                await db.execute(MARK_PUBLISHED, marked)

    async def due_tasks(
        self,
        limit: int,
        least_waiting: int,
        moment: timedelta,
        a_while: timedelta,
        least_share: float,
        aside: Sequence[UUID] = (),
    ) -> list[DueTask]:
        """Returns the tasks whose turn it is to get a message.

        Args:
            limit: most tasks to return.
            least_waiting: messages that a model's queue may hold in any case.
            moment: it may hold as many as were done in this time.
            a_while: what a tenant or a priority has had in this time counts.
            least_share: of it, that a priority has while it has work, whatever goes before it.
            aside: tasks to leave out.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                DUE_TASKS,
                limit=limit,
                least_waiting=least_waiting,
                moment=moment,
                a_while=a_while,
                least_share=least_share,
                aside=list(aside),
            )
        return [DueTask(**row) for row in rows]

    async def dispatched(self, tasks: Sequence[DueTask], sequences: Sequence[int]) -> None:
        """Messages for the tasks are in the work queue, with these numbers."""
        async with self._pool.connection() as db:
            await db.execute(
                MARK_DISPATCHED,
                {
                    "task_ids": [task.task_id for task in tasks],
                    "attempts": [task.attempt for task in tasks],
                    "counts": [task.dispatch_count for task in tasks],
                    "sequences": list(sequences),
                },
            )

    async def messages_to_check(self, age: timedelta, limit: int) -> list[tuple[UUID, int]]:
        """Returns tasks that have waited so long since their message was seen, with its number.

        Another replica gets others.
        """
        async with self._pool.connection() as db:
            rows = await every(db, CLAIM_MESSAGES_TO_CHECK, age=age, limit=limit)
        return [(row["task_id"], row["message_sequence"]) for row in rows]

    async def message_lost(self, task_id: UUID, sequence: int) -> None:
        """The work queue has no such message for the task: it needs another."""
        async with self._pool.connection() as db:
            await db.execute(FORGET_MESSAGE, {"task_id": task_id, "sequence": sequence})

    async def audio_to_check(
        self, preparing_age: timedelta, ready_age: timedelta, limit: int
    ) -> list[AudioToCheck]:
        """Returns jobs whose audio was not looked at for so long. Another replica gets others.

        Args:
            preparing_age: for audio that is being prepared.
            ready_age: for audio that is READY, which can only be deleted any more.
            limit: most jobs to return.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                CLAIM_AUDIO_TO_CHECK,
                preparing_age=preparing_age,
                ready_age=ready_age,
                limit=limit,
            )
        return [AudioToCheck(**row) for row in rows]

    async def jobs_of_audio(self, audio_id: UUID) -> list[AudioToCheck]:
        """Returns the jobs on an audio that have not ended."""
        async with self._pool.connection() as db:
            return [
                AudioToCheck(**row) for row in await every(db, JOBS_OF_AUDIO, audio_id=audio_id)
            ]

    async def statistics(self) -> Statistics:
        """Counts what there is."""
        async with self._pool.connection() as db:
            row = await one(db, STATISTICS)
        assert row is not None
        return Statistics(**row)
