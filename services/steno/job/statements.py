"""Every SQL statement of this service but those of the queue, which are in turns.py.

The columns of a statement come from the lists in rows.py, so that a field is written wherever it is
read.
"""

from __future__ import annotations

from steno.job.domain import JobFilter
from steno.job.rows import (
    JOB,
    NEW_JOB_COLUMNS,
    NEW_TASK_COLUMNS,
    SAVED_JOB_COLUMNS,
    SAVED_TASK_COLUMNS,
    SLICE,
    SLICE_COLUMNS,
    TASK,
)
from steno.platform.database import assignments, listed

_COPIED_TASK_COLUMNS = (
    *("tenant", "model", *SLICE_COLUMNS),
    *("state", "transcribed_sample_count", "result", "end_time"),
)

# Notes the request_ids of calls; those that are noted already don't come back.
REMEMBER_REQUESTS = """
INSERT INTO job.request_ids (tenant, method, request_id, body_sha256, job_id)
SELECT tenant, method, request_id, body_sha256, job_id
FROM unnest(
    %(tenants)s::text[], %(methods)s::text[], %(request_ids)s::uuid[], %(body_sha256s)s::bytea[],
    %(job_ids)s::uuid[]
) AS noted (tenant, method, request_id, body_sha256, job_id)
ON CONFLICT DO NOTHING
RETURNING job_id
"""

# The job that a call with this request_id made.
FIND_REQUEST = """
SELECT job_id, body_sha256 FROM job.request_ids
WHERE tenant = %(tenant)s AND method = %(method)s AND request_id = %(request_id)s
"""

# New jobs, each with the trace of the call that made it.
INSERT_JOBS = f"""
INSERT INTO job.jobs ({listed(NEW_JOB_COLUMNS)})
SELECT {listed(NEW_JOB_COLUMNS)} FROM json_populate_recordset(NULL::job.jobs, %(rows)s)
"""

# One job.
GET_JOB = f"SELECT {JOB} FROM job.jobs WHERE job_id = %(job_id)s"

# Whose a job is.
TENANT_OF_JOB = "SELECT tenant FROM job.jobs WHERE job_id = %(job_id)s"

# One job and the time, under its lock. Whatever changes a job begins with this.
LOCK_JOB = f"""
SELECT {JOB}, clock_timestamp() AS now FROM job.jobs
WHERE job_id = %(job_id)s FOR UPDATE
"""

# The same, or no row if another transaction holds the lock.
LOCK_JOB_IF_FREE = LOCK_JOB.rstrip() + " SKIP LOCKED"

# Tells a job that is locked from one that is gone.
JOB_EXISTS = "SELECT FROM job.jobs WHERE job_id = %(job_id)s"

# The job whose lock protects a task.
JOB_OF_TASK = "SELECT job_id FROM job.tasks WHERE task_id = %(task_id)s"

# What jobs have become, by the lists of columns in rows.py.
SAVE_JOBS = f"""
UPDATE job.jobs SET {assignments(SAVED_JOB_COLUMNS, "saved")}
FROM json_populate_recordset(NULL::job.jobs, %(rows)s) AS saved
WHERE jobs.job_id = saved.job_id
"""

# How much has not ended, by tenant.
LOADS = """
SELECT tenant, count(*) AS jobs, sum(sample_count - transcribed_sample_count)::bigint AS samples
FROM job.jobs WHERE state IN ('QUEUED', 'RUNNING')
GROUP BY tenant
"""

# The same of one tenant.
LOAD_OF_TENANT = LOADS.replace("GROUP BY", "    AND tenant = %(tenant)s\nGROUP BY")

# Jobs, and those of their slices that are tried again: how many, and the one tried most often.
JOBS_WITH_RETRIED = f"""
SELECT {JOB}, retried_count, slice_index, failure_count, last_error, next_attempt_time
FROM job.jobs LEFT JOIN LATERAL (
    SELECT count(*) OVER () AS retried_count, slice_index, failure_count, last_error,
        next_attempt_time
    FROM job.tasks
    WHERE tasks.job_id = jobs.job_id AND failure_count > 0 AND tasks.state IN ('PENDING', 'LEASED')
    ORDER BY failure_count DESC, slice_index LIMIT 1
) AS retried ON true
WHERE jobs.job_id = ANY(%(job_ids)s)
"""

# One job, and with it its tasks, events and request ids.
DELETE_JOB = "DELETE FROM job.jobs WHERE job_id = %(job_id)s"

# Jobs that ended too long ago to be kept, the oldest first.
OLD_JOBS = """
SELECT job_id FROM job.jobs
WHERE end_time < now() - %(age)s AND job_id <> ALL(%(aside)s::uuid[])
ORDER BY end_time LIMIT %(limit)s
"""


def list_jobs(where: JobFilter, *, first_page: bool) -> str:
    """A page of a tenant's jobs, the newest first.

    Only what is asked for is in the statement, and each state is looked up by itself: each then has
    an index that gives its jobs in their order.
    """
    wanted = ["jobs.tenant = %(tenant)s"]
    if where.states:
        wanted.append("jobs.state = wanted.state")
    if where.labels:
        wanted.append("labels @> %(labels)s")
    if where.create_time_from is not None:
        wanted.append("create_time >= %(create_time_from)s")
    if where.create_time_to is not None:
        wanted.append("create_time < %(create_time_to)s")
    if not first_page:
        wanted.append("(create_time, job_id) < (%(before_time)s, %(before_job_id)s)")
    page = f"""
SELECT {JOB} FROM job.jobs
WHERE {" AND ".join(wanted)}
ORDER BY create_time DESC, job_id DESC LIMIT %(limit)s
"""
    if not where.states:
        return page
    return f"""
SELECT {JOB} FROM unnest(%(states)s::text[]) AS wanted (state), LATERAL ({page}) AS jobs
ORDER BY create_time DESC, job_id DESC LIMIT %(limit)s
"""


# The next events of the logs of jobs.
INSERT_EVENTS = """
INSERT INTO job.events (job_id, revision, payload)
SELECT job_id, revision, payload
FROM unnest(%(job_ids)s::uuid[], %(revisions)s::bigint[], %(payloads)s::bytea[])
    AS event (job_id, revision, payload)
"""

# The events of one job behind a revision.
EVENTS_AFTER = """
SELECT payload FROM job.events
WHERE job_id = %(job_id)s AND revision > %(revision)s
ORDER BY revision LIMIT %(limit)s
"""

# The events of several jobs, each from a revision on.
EVENTS_FROM = """
SELECT wanted.job_id, events.revision, payload
FROM unnest(%(job_ids)s::uuid[], %(revisions)s::bigint[]) AS wanted (job_id, revision), LATERAL (
    SELECT revision, payload FROM job.events
    WHERE job_id = wanted.job_id AND revision >= wanted.revision
    ORDER BY revision LIMIT %(limit)s
) AS events
ORDER BY wanted.job_id, events.revision
"""

# The tasks of slices.
INSERT_TASKS = f"""
INSERT INTO job.tasks ({listed(NEW_TASK_COLUMNS)})
SELECT {listed(NEW_TASK_COLUMNS)} FROM json_populate_recordset(NULL::job.tasks, %(rows)s)
"""

# What the job before has done becomes part of its retry.
COPY_DONE_TASKS = f"""
INSERT INTO job.tasks (job_id, {listed(_COPIED_TASK_COLUMNS)})
SELECT %(job_id)s, {listed(_COPIED_TASK_COLUMNS)}
FROM job.tasks WHERE job_id = %(retry_of_job_id)s AND state = 'DONE'
RETURNING slice_index, sample_count
"""

# The jobs of some tasks under their locks, without those that another transaction holds.
LOCK_FREE_JOBS_OF_TASKS = f"""
SELECT {JOB}, clock_timestamp() AS now FROM job.jobs
WHERE job_id IN (SELECT job_id FROM job.tasks WHERE task_id = ANY(%(task_ids)s))
FOR UPDATE SKIP LOCKED
"""

# Some tasks. They change only under the locks of their jobs.
GET_TASKS = f"SELECT {TASK} FROM job.tasks WHERE task_id = ANY(%(task_ids)s)"

# What tasks have become, by the lists of columns in rows.py. The times are those of the database.
# A task that is PENDING again needs a new message, since its old one may be gone.
SAVE_TASKS = f"""
UPDATE job.tasks SET
    {assignments(SAVED_TASK_COLUMNS, "saved")},
    result = coalesce(saved.result, tasks.result),
    lease_time = CASE
        WHEN tasks.attempt < saved.attempt THEN clock_timestamp() ELSE tasks.lease_time END,
    lease_expire_time = CASE WHEN saved.state = 'LEASED' THEN clock_timestamp() + %(lease)s END,
    end_time = CASE WHEN saved.state IN ('DONE', 'FAILED') THEN clock_timestamp() END,
    message_sequence = CASE WHEN saved.state <> 'PENDING' THEN tasks.message_sequence END
FROM json_populate_recordset(NULL::job.tasks, %(rows)s) AS saved
WHERE tasks.task_id = saved.task_id
"""

# The tasks of a job that ends are not worked on any more.
CANCEL_TASKS = """
UPDATE job.tasks SET state = 'CANCELLED', end_time = clock_timestamp(), lease_expire_time = NULL
WHERE job_id = %(job_id)s AND state IN ('PENDING', 'LEASED')
"""

# Tasks of a job that may go to workers from now on.
RELEASE_TASKS = """
UPDATE job.tasks SET released = true
WHERE job_id = %(job_id)s AND slice_index <= %(last_index)s AND NOT released
    AND state = 'PENDING'
"""

# Slices that are done or left out, from one on, with their results.
ENDED_TASKS = f"""
SELECT {SLICE}, result FROM job.tasks
WHERE job_id = %(job_id)s AND state IN ('DONE', 'FAILED') AND slice_index >= %(first_index)s
ORDER BY slice_index LIMIT %(limit)s
"""

# Jobs whose next slice has ended, and in which nobody has gone on from there: whoever ends the
# slice that is next joins as many as are joined at once, so that some are joined already.
UNJOINED_JOBS = """
SELECT job_id FROM job.jobs JOIN job.tasks USING (job_id)
WHERE jobs.state IN ('QUEUED', 'RUNNING') AND joined_count > 0 AND joined_count < task_count
    AND slice_index = joined_count AND tasks.state IN ('DONE', 'FAILED')
    AND job_id <> ALL(%(aside)s::uuid[])
LIMIT %(limit)s
"""

# Some of the slices that are joined already, with their results.
JOINED_RESULTS = f"""
SELECT {SLICE}, result FROM job.tasks
WHERE job_id = %(job_id)s AND slice_index >= %(first_index)s AND slice_index < %(end_index)s
ORDER BY slice_index
"""

# Leases that their workers have not renewed in time.
PAST_LEASES = """
SELECT task_id, attempt FROM job.tasks
WHERE state = 'LEASED' AND lease_expire_time < clock_timestamp()
    AND task_id <> ALL(%(aside)s::uuid[])
ORDER BY lease_expire_time LIMIT %(limit)s
"""

# Jobs that have not ended by their deadline.
LATE_JOBS = """
SELECT job_id FROM job.jobs
WHERE state IN ('QUEUED', 'RUNNING') AND deadline < clock_timestamp()
    AND job_id <> ALL(%(aside)s::uuid[])
ORDER BY deadline LIMIT %(limit)s
"""

# Events that NATS has not got, locked: replicas take different ones.
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

# NATS has these events.
MARK_PUBLISHED = """
UPDATE job.events SET published = true
FROM unnest(%(job_ids)s::uuid[], %(revisions)s::bigint[]) AS sent (job_id, revision)
WHERE events.job_id = sent.job_id AND events.revision = sent.revision
"""

# Messages for these tasks are in the work queue. A lease that came and went since the task was read
# has outdated its message. Rows that another transaction has locked are skipped, since waiting
# could deadlock; their tasks are sent again, under the same ids.
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

# Tasks whose message was not checked for a while; this replica checks it now.
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

# The message of a task is lost, so that the task is due again.
FORGET_MESSAGE = """
UPDATE job.tasks SET message_sequence = NULL
WHERE task_id = %(task_id)s AND message_sequence = %(sequence)s AND state = 'PENDING'
"""

# Jobs whose audio was not asked for in a while, of each of its states the longest first; this
# replica asks now.
CLAIM_AUDIO_TO_CHECK = """
UPDATE job.jobs SET audio_check_time = now()
WHERE job_id IN (
    SELECT job_id FROM (
        VALUES ('PREPARING', %(preparing_age)s), ('READY', %(ready_age)s)
    ) AS wanted (audio_state, age), LATERAL (
        SELECT job_id FROM job.jobs
        WHERE state IN ('QUEUED', 'RUNNING') AND jobs.audio_state = wanted.audio_state
            AND audio_check_time < now() - age
        ORDER BY audio_check_time LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS of_state
)
RETURNING job_id, audio_id, task_count
"""

# The jobs on an audio that have not ended.
JOBS_OF_AUDIO = """
SELECT job_id, audio_id, task_count FROM job.jobs
WHERE audio_id = %(audio_id)s AND state IN ('QUEUED', 'RUNNING')
"""

# What the gauges of metrics.py show.
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
