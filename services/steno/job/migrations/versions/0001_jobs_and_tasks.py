"""Jobs, their tasks, their event log, and remembered request ids."""

from alembic import op

revision = "job_0001"
down_revision = None

TABLES = """
-- The transcription of one audio with one config.
CREATE TABLE job.jobs (
    job_id                   uuid PRIMARY KEY,
    tenant                   text NOT NULL DEFAULT 'default',
    audio_id                 uuid NOT NULL,
    display_name             text NOT NULL,
    labels                   jsonb NOT NULL CHECK (jsonb_typeof(labels) = 'object'),
    config                   jsonb NOT NULL CHECK (jsonb_typeof(config) = 'object'),
    model                    text NOT NULL GENERATED ALWAYS AS (config ->> 'model') STORED,
    retry_of_job_id          uuid,
    -- Headers of the call that made it, so that the work on it belongs to the same trace.
    trace                    jsonb NOT NULL DEFAULT '{}',
    state                    text NOT NULL DEFAULT 'QUEUED'
                             CHECK (state IN
                                 ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    error_reason             text,
    error_message            text,
    -- As the upload service said last, and when it was asked.
    audio_state              text NOT NULL DEFAULT 'PREPARING'
                             CHECK (audio_state IN ('PREPARING', 'READY', 'REJECTED')),
    audio_truncated          boolean NOT NULL DEFAULT false,
    audio_check_time         timestamptz NOT NULL DEFAULT now(),
    language_code            text NOT NULL DEFAULT '',
    revision                 bigint NOT NULL DEFAULT 0,
    progress                 double precision NOT NULL DEFAULT 0,
    -- Lengths are samples at 16 kHz. `joined` slices are the done ones from the start, without a
    -- hole; their segments are final.
    sample_count             bigint NOT NULL DEFAULT 0,
    transcribed_sample_count bigint NOT NULL DEFAULT 0,
    task_count               integer NOT NULL DEFAULT 0,
    joined_count             integer NOT NULL DEFAULT 0,
    segment_count            integer NOT NULL DEFAULT 0,
    create_time              timestamptz NOT NULL DEFAULT now(),
    update_time              timestamptz NOT NULL DEFAULT now(),
    start_time               timestamptz,
    end_time                 timestamptz,

    CHECK (progress BETWEEN 0 AND 1),
    CONSTRAINT whole_only_with_success CHECK ((progress = 1) = (state = 'SUCCEEDED')),
    CONSTRAINT error_only_with_failure
        CHECK ((error_reason IS NOT NULL AND error_message IS NOT NULL) = (state = 'FAILED')),
    CHECK ((end_time IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))),
    CHECK (start_time IS NOT NULL OR state <> 'RUNNING'),
    CHECK (transcribed_sample_count BETWEEN 0 AND sample_count),
    CHECK (joined_count BETWEEN 0 AND task_count),
    CHECK (state <> 'SUCCEEDED' OR (joined_count = task_count AND audio_state = 'READY'))
);
CREATE INDEX ON job.jobs (tenant, create_time DESC, job_id DESC);
CREATE INDEX ON job.jobs USING gin (labels jsonb_path_ops);
-- The queue: what has not ended.
CREATE INDEX ON job.jobs (model, create_time, job_id) WHERE state IN ('QUEUED', 'RUNNING');
CREATE INDEX ON job.jobs (audio_id) WHERE state IN ('QUEUED', 'RUNNING');

-- The transcription of one slice, and the lease of the worker that does it.
CREATE TABLE job.tasks (
    task_id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant                   text NOT NULL DEFAULT 'default',
    job_id                   uuid NOT NULL REFERENCES job.jobs ON DELETE CASCADE,
    model                    text NOT NULL,
    slice_index              integer NOT NULL CHECK (slice_index >= 0),
    start_sample             bigint NOT NULL CHECK (start_sample >= 0),
    sample_count             bigint NOT NULL CHECK (sample_count >= 0),
    speech_sample_count      bigint NOT NULL CHECK (speech_sample_count >= 0),
    object_key               text NOT NULL,
    state                    text NOT NULL DEFAULT 'PENDING'
                             CHECK (state IN
                                 ('PENDING', 'LEASED', 'DONE', 'FAILED', 'CANCELLED')),
    -- The fencing token: how often it was leased.
    attempt                  integer NOT NULL DEFAULT 0,
    failures                 integer NOT NULL DEFAULT 0,
    last_error               text NOT NULL DEFAULT '',
    worker_id                text,
    lease_time               timestamptz,
    lease_expire_time        timestamptz,
    end_time                 timestamptz,
    transcribed_sample_count bigint NOT NULL DEFAULT 0,
    -- A steno.v1.SliceTranscript.
    result                   bytea,
    -- May go to workers. Its live message in STENO_TASKS, if it has one, and how many it had.
    released                 boolean NOT NULL DEFAULT false,
    dispatch_count           integer NOT NULL DEFAULT 0,
    message_sequence         bigint,
    message_check_time       timestamptz NOT NULL DEFAULT now(),
    create_time              timestamptz NOT NULL DEFAULT now(),

    UNIQUE (job_id, slice_index),
    CHECK (transcribed_sample_count BETWEEN 0 AND sample_count),
    CONSTRAINT result_only_when_done CHECK ((result IS NOT NULL) = (state = 'DONE')),
    CONSTRAINT whole_when_done CHECK (state <> 'DONE' OR transcribed_sample_count = sample_count),
    CONSTRAINT lease_only_when_leased
        CHECK ((lease_expire_time IS NOT NULL) = (state = 'LEASED')),
    CHECK (state <> 'LEASED' OR (worker_id IS NOT NULL AND lease_time IS NOT NULL))
);
CREATE INDEX ON job.tasks (create_time, slice_index)
    WHERE state = 'PENDING' AND released AND message_sequence IS NULL;
CREATE INDEX ON job.tasks (message_check_time)
    WHERE state = 'PENDING' AND message_sequence IS NOT NULL;
CREATE INDEX ON job.tasks (lease_expire_time) WHERE state = 'LEASED';
CREATE INDEX ON job.tasks (state) WHERE state IN ('PENDING', 'LEASED');
-- The speed of the workers is measured on the tasks that were done last.
CREATE INDEX ON job.tasks (model, end_time DESC) WHERE state = 'DONE' AND lease_time IS NOT NULL;

-- What happened to a job: the log that watchers replay, and the outbox of what NATS must get.
CREATE TABLE job.events (
    job_id      uuid NOT NULL REFERENCES job.jobs ON DELETE CASCADE,
    tenant      text NOT NULL DEFAULT 'default',
    revision    bigint NOT NULL CHECK (revision >= 1),
    -- A steno.v1.JobEvent.
    payload     bytea NOT NULL,
    published   boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, revision)
);
CREATE INDEX ON job.events (create_time, job_id, revision) WHERE NOT published;

-- Calls that made a job, so that a repeat finds it. Forgotten with the job.
CREATE TABLE job.request_ids (
    tenant      text NOT NULL DEFAULT 'default',
    method      text NOT NULL,
    request_id  uuid NOT NULL,
    body_sha256 bytea NOT NULL,
    job_id      uuid NOT NULL
                REFERENCES job.jobs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, method, request_id)
);
CREATE INDEX ON job.request_ids (job_id);
"""

RULES = """
CREATE FUNCTION job.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.%: %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER begins_queued BEFORE INSERT ON job.jobs FOR EACH ROW
    WHEN (NEW.state <> 'QUEUED')
    EXECUTE FUNCTION job.refuse('a job begins QUEUED');

CREATE TRIGGER end_is_final BEFORE UPDATE ON job.jobs FOR EACH ROW
    WHEN (OLD.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))
    EXECUTE FUNCTION job.refuse('a job that has ended does not change');

CREATE TRIGGER runs_once BEFORE UPDATE ON job.jobs FOR EACH ROW
    WHEN (OLD.state = 'RUNNING' AND NEW.state = 'QUEUED')
    EXECUTE FUNCTION job.refuse('a job that runs is not queued again');

CREATE TRIGGER progress_only_rises BEFORE UPDATE ON job.jobs FOR EACH ROW
    WHEN (NEW.progress < OLD.progress OR NEW.revision < OLD.revision
        OR NEW.transcribed_sample_count < OLD.transcribed_sample_count
        OR NEW.joined_count < OLD.joined_count OR NEW.task_count < OLD.task_count)
    EXECUTE FUNCTION job.refuse('progress never goes back');

CREATE TRIGGER language_is_fixed BEFORE UPDATE ON job.jobs FOR EACH ROW
    WHEN (OLD.language_code NOT IN ('', NEW.language_code))
    EXECUTE FUNCTION job.refuse('the language stays once it is known');

CREATE TRIGGER ended_before_deleted BEFORE DELETE ON job.jobs FOR EACH ROW
    WHEN (OLD.state IN ('QUEUED', 'RUNNING'))
    EXECUTE FUNCTION job.refuse('a job that has not ended stays');

CREATE TRIGGER begins_pending BEFORE INSERT ON job.tasks FOR EACH ROW
    WHEN (NEW.state NOT IN ('PENDING', 'DONE') OR NEW.attempt <> 0)
    EXECUTE FUNCTION job.refuse('a task begins PENDING, or DONE in a retry, and never leased');

CREATE TRIGGER moves_one_way BEFORE UPDATE ON job.tasks FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
        ('PENDING', 'LEASED'), ('PENDING', 'CANCELLED'),
        ('LEASED', 'PENDING'), ('LEASED', 'DONE'), ('LEASED', 'FAILED'), ('LEASED', 'CANCELLED')))
    EXECUTE FUNCTION job.refuse('no such move');

CREATE TRIGGER attempt_counts_leases BEFORE UPDATE ON job.tasks FOR EACH ROW
    WHEN (NEW.attempt <> OLD.attempt
        + CASE WHEN OLD.state = 'PENDING' AND NEW.state = 'LEASED' THEN 1 ELSE 0 END)
    EXECUTE FUNCTION job.refuse('each lease, and nothing else, raises the attempt by one');

CREATE TRIGGER progress_only_rises BEFORE UPDATE ON job.tasks FOR EACH ROW
    WHEN (NEW.transcribed_sample_count < OLD.transcribed_sample_count
        OR NEW.failures < OLD.failures OR NEW.dispatch_count < OLD.dispatch_count)
    EXECUTE FUNCTION job.refuse('progress never goes back');

CREATE TRIGGER result_is_final BEFORE UPDATE ON job.tasks FOR EACH ROW
    WHEN (OLD.result IS NOT NULL AND NEW.result IS DISTINCT FROM OLD.result)
    EXECUTE FUNCTION job.refuse('a result is written once');

CREATE TRIGGER only_published_changes BEFORE UPDATE ON job.events FOR EACH ROW
    WHEN (NOT NEW.published OR (NEW.job_id, NEW.revision, NEW.payload)
        IS DISTINCT FROM (OLD.job_id, OLD.revision, OLD.payload))
    EXECUTE FUNCTION job.refuse('an event does not change');

CREATE FUNCTION job.refuse_holes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM job.events WHERE job_id = NEW.job_id AND revision = NEW.revision - 1
    ) THEN
        RAISE EXCEPTION 'job.events: the log has no holes' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER no_holes BEFORE INSERT ON job.events FOR EACH ROW
    WHEN (NEW.revision > 1) EXECUTE FUNCTION job.refuse_holes();
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(RULES)
