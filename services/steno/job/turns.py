"""Whose turn it is: the order in which tasks are started, and what it tells of a job's place.

Tasks of one tenant, model and priority stand in one line, which has a clock in samples of audio.
Each slice has a turn on that clock: where the slice before it ends, but not before the turn of what
was started last (start-time fair queueing; Goyal, Vin, Cheng 1996). So all jobs of a line advance
at one pace, however long they are and whenever they came, and a new one joins where the others are.

Tasks are started by priority, but each priority that has work gets LEAST_SHARE of the audio at
least. Of one priority, the tenant goes first that has had the least audio lately, with what is on
its way; of a tenant's tasks, the one with the first turn.

A message in NATS keeps its place, so nothing could go before it that comes later. The work queue of
a model therefore holds only what its workers take in a MOMENT; all else waits in Postgres, where
the order can still change.

The same clock gives the time left: when a job's last turn comes, each other job of its line has had
what of it lies before, and each other tenant as much as its own, or all that it wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from steno.job.domain import Job, NewJob, Slice

LEAST_WAITING = 8
"""Messages that a model's queue may hold, however slow its workers are."""
MOMENT = timedelta(seconds=2)
"""A queue may hold as many messages as the workers have done in this time: they never wait for the
next."""
A_WHILE = timedelta(minutes=1)
"""Tenants have had equal shares of audio in this time, as far as they had work."""
LEAST_SHARE = 1 / 8
"""Of the audio of that time, what a priority has at least, as far as it has work."""


def line_of(job: NewJob | Job) -> tuple[str, str, int]:
    """The line that a job stands in: tenant, model, priority."""
    return job.tenant, job.config.model, int(job.priority)


def queued(job: Job, slices: Sequence[Slice], clock: int) -> tuple[Job, list[int]]:
    """Gives new slices of a job their turns.

    Args:
        job: the job, whose `turn` is where its last slice ends.
        slices: those that follow it, in order.
        clock: the clock of the job's line, in samples.

    Returns:
        The job with its new last turn, and the turn of each slice.
    """
    turn = max(job.turn, clock)
    turns = []
    for piece in slices:
        turns.append(turn)
        turn += piece.sample_count
    return replace(job, turn=turn), turns


# The clock of each line, and the time. If nothing in a line has started, its clock is the turn of
# its first waiting task, and 0 if nothing waits either.
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

# Where all jobs that wait or run stand in the queue: how much is ahead of each, how fast a slice is
# done, and how many are done at once. Leases count as busy while a worker only prefetches, and so
# does the time that a slice takes: the two together give what the workers really do.
#
# What is on its way to the workers goes before all else, in the order of its messages. Of the rest,
# a job occupies its tenant's clock from its next turn to its last, and when that comes each other
# job of its tenant and priority has had what of it lies before: with slopes of 1 and -1 at the two
# ends of each job, the sum of what all have had at a turn is turn * sum(slope) - sum(slope * turn).
# By then each other tenant has had as much, or all that it wants: with the tenants in the order of
# what they want, those that want less have had all of it, the others as much as the job's own.
QUEUE = """
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
), waiting AS (
    SELECT
        job_id, model, priority, tenant, state, turn, sent_until, coalesce(sent.samples, 0) AS sent,
        greatest(0, sample_count - transcribed_sample_count - coalesce(sent.samples, 0))
            AS left_count,
        row_number() OVER (
            PARTITION BY model, state
            ORDER BY priority, turn - sample_count + transcribed_sample_count, create_time, job_id
        ) AS place
    FROM job.jobs LEFT JOIN sent USING (job_id)
    WHERE state IN ('QUEUED', 'RUNNING') AND (not_before IS NULL OR not_before <= now())
), line AS (
    SELECT job_id, model, priority, tenant, state, turn, sent_until, left_count, place,
        sum(left_count) OVER (PARTITION BY model, priority, tenant) AS tenant_wants
    FROM waiting
), ends AS (
    SELECT job_id, model, priority, state, sent_until, left_count, place, tenant_wants,
        tenant, turn, -1 AS slope
    FROM line
    UNION ALL
    SELECT NULL, model, priority, NULL, NULL, NULL, NULL, NULL, tenant, turn - left_count, 1
    FROM line
), had AS (
    SELECT job_id, model, priority, state, sent_until, left_count, place, tenant_wants,
        turn * sum(slope) OVER by_then - sum(slope * turn) OVER by_then AS samples
    FROM ends
    WINDOW by_then AS (PARTITION BY model, priority, tenant ORDER BY turn)
), with_tenants AS (
    SELECT job_id, model, priority, state, sent_until, left_count, place, tenant_wants, samples,
        NULL::numeric AS wanted
    FROM had WHERE job_id IS NOT NULL
    UNION ALL
    SELECT NULL, model, priority, NULL, NULL, NULL, NULL, NULL, sum(left_count), sum(left_count)
    FROM waiting GROUP BY model, priority, tenant
), ahead AS (
    SELECT job_id, model, priority, state, sent_until, left_count, place,
        -- What all tenants have had; its own has had as much as the job, or has no more.
        coalesce(sum(wanted) OVER up_to_own, 0)
            + samples * (count(wanted) OVER all_tenants - count(wanted) OVER up_to_own)
            + samples - least(samples, tenant_wants) AS samples
    FROM with_tenants
    WINDOW all_tenants AS (PARTITION BY model, priority),
        up_to_own AS (PARTITION BY model, priority ORDER BY samples)
), before AS (
    SELECT model, priority, sum(sum(left_count)) OVER higher AS samples,
        sum(sum(sent)) OVER (PARTITION BY model) AS sent
    FROM waiting GROUP BY model, priority
    WINDOW higher AS (
        PARTITION BY model ORDER BY priority ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
), speed AS (
    SELECT model, samples_per_second * greatest(1, busy) AS samples_per_second
    FROM (SELECT DISTINCT model FROM waiting) AS models,
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
SELECT array_agg(job_id) AS job_ids,
    array_agg(CASE WHEN state = 'QUEUED' THEN place - 1 END) AS positions,
    array_agg((CASE
        WHEN left_count = 0 AND sent_until IS NOT NULL THEN sent_until
        ELSE before.sent + coalesce(before.samples, 0) + ahead.samples
    END / nullif(samples_per_second, 0))::double precision) AS remaining_seconds
FROM ahead JOIN before USING (model, priority) JOIN speed USING (model)
WHERE job_id IS NOT NULL
"""

# The tasks that get a message next, in the order of priorities, tenants and turns, as far as the
# work queue has room. What begins within the least share of its priority goes before all else,
# however long it is. Lines are found by steps from one to the next, and only those are read further
# whose first tasks could get a message: what stands behind those first ones is not read. Not
# materialized, or all that is due would be copied.
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
    SELECT model, greatest(%(least_waiting)s, done) - waiting AS room
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
    WHERE model IS NOT NULL AND waiting < greatest(%(least_waiting)s, done)
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
), lines AS (
    SELECT first.model, first.tenant, first.priority FROM room, LATERAL (
        SELECT model, tenant, priority FROM due WHERE due.model = room.model
        ORDER BY tenant, priority LIMIT 1
    ) AS first
    UNION ALL
    SELECT next.model, next.tenant, next.priority FROM lines, LATERAL (
        SELECT model, tenant, priority FROM due
        WHERE due.model = lines.model
            AND (due.tenant, due.priority) > (lines.tenant, lines.priority)
        ORDER BY tenant, priority LIMIT 1
    ) AS next
), first_lines AS (
    SELECT model, tenant, priority, room FROM (
        SELECT lines.model, lines.tenant, lines.priority, room, row_number() OVER (
            PARTITION BY lines.model, lines.priority
            ORDER BY coalesce(had_by_tenant.samples, 0), turn, slice_index
        ) AS place
        FROM lines JOIN room USING (model) LEFT JOIN had_by_tenant USING (model, tenant), LATERAL (
            SELECT due.turn, slice_index FROM due JOIN job.jobs ON jobs.job_id = due.job_id
            WHERE due.model = lines.model AND due.tenant = lines.tenant
                AND due.priority = lines.priority
                AND (not_before IS NULL OR not_before <= now())
            ORDER BY due.turn, due.slice_index LIMIT 1
        ) AS first
    ) AS by_first WHERE place <= room
), next AS (
    SELECT first.task_id, first.job_id, lines.model, lines.tenant, lines.priority, first.turn,
        slice_index, first.sample_count, attempt, dispatch_count, trace,
        sum(first.sample_count) OVER (
            PARTITION BY lines.model, lines.tenant, lines.priority
            ORDER BY first.turn, slice_index ROWS UNBOUNDED PRECEDING
        ) - first.sample_count AS before
    FROM first_lines AS lines, LATERAL (
        SELECT task_id, due.job_id, due.turn, slice_index, due.sample_count, attempt,
            dispatch_count, trace
        FROM due JOIN job.jobs ON jobs.job_id = due.job_id
        WHERE due.model = lines.model AND due.tenant = lines.tenant
            AND due.priority = lines.priority
            AND (not_before IS NULL OR not_before <= now())
        ORDER BY due.turn, due.slice_index LIMIT lines.room
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
