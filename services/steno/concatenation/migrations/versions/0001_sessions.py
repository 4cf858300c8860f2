"""Sessions, their chunks, and the recording that is made of them."""

from alembic import op

revision = "concatenation_0001"
down_revision = None

TABLES = """
CREATE TABLE concatenation.sessions (
    session_id          uuid PRIMARY KEY,
    tenant              text NOT NULL DEFAULT 'default',
    display_name        text NOT NULL,
    labels              jsonb NOT NULL,
    encoding            text NOT NULL
                        CHECK (encoding IN ('LINEAR16', 'FLOAT32', 'MULAW', 'ALAW', 'CONTAINER')),
    sample_rate_hertz   integer NOT NULL,
    channel_count       integer NOT NULL,
    chunk_form          text NOT NULL CHECK (chunk_form IN ('STREAM', 'FILES')),
    language_code       text NOT NULL,
    live_results        boolean NOT NULL,
    interim_results     boolean NOT NULL,
    endpointing_silence interval NOT NULL,
    idle_timeout        interval NOT NULL,
    max_duration        interval NOT NULL,
    gap_timeout         interval NOT NULL,
    final_job           boolean NOT NULL,
    -- A serialized RecognitionConfig, for the job service.
    final_job_config    bytea NOT NULL,

    state               text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'CLOSED', 'EXPIRED')),
    error_reason        text,
    error_message       text CHECK ((error_reason IS NULL) = (error_message IS NULL)),
    -- Fencing token of streams: each that takes over raises it.
    epoch               integer NOT NULL DEFAULT 0,
    producer_id         uuid,
    revision            bigint NOT NULL DEFAULT 0,

    -- Chunks before next_sequence are in order, or gaps.
    next_sequence       bigint NOT NULL DEFAULT 0,
    max_sequence        bigint NOT NULL DEFAULT -1,
    byte_count          bigint NOT NULL DEFAULT 0,
    -- Since then next_sequence is missing while a later chunk is there.
    waiting_since       timestamptz,
    chunk_time          timestamptz,

    -- The recording, in frames of its own format.
    decoded_sequence    bigint NOT NULL DEFAULT 0,
    frame_count         bigint NOT NULL DEFAULT 0,
    chunk_frame_count   bigint NOT NULL DEFAULT 0,
    gap_frame_count     bigint NOT NULL DEFAULT 0,
    drained             boolean NOT NULL DEFAULT false,
    part_count          integer NOT NULL DEFAULT 0,
    joined_frame_count  bigint NOT NULL DEFAULT 0,

    live_frame_count    bigint NOT NULL DEFAULT 0,
    live_segment_count  integer NOT NULL DEFAULT 0,
    live_language_code  text NOT NULL DEFAULT '',
    live_done           boolean NOT NULL DEFAULT false,
    live_error          text NOT NULL DEFAULT '',

    audio_id            uuid,
    job_id              uuid,
    job_error           text NOT NULL DEFAULT '',
    finished            boolean NOT NULL DEFAULT false,

    -- The lease of the replica that does the work behind it. Each lease raises the attempt.
    attempt             integer NOT NULL DEFAULT 0,
    failures            integer NOT NULL DEFAULT 0,
    lease_until         timestamptz,
    not_before          timestamptz NOT NULL DEFAULT now(),

    create_time         timestamptz NOT NULL DEFAULT now(),
    update_time         timestamptz NOT NULL DEFAULT now(),
    end_time            timestamptz CHECK ((end_time IS NULL) = (state = 'OPEN'))
);
CREATE INDEX ON concatenation.sessions (tenant, create_time DESC, session_id DESC);
CREATE INDEX ON concatenation.sessions (tenant) WHERE state = 'OPEN';
CREATE INDEX ON concatenation.sessions (not_before) WHERE NOT finished;
CREATE INDEX ON concatenation.sessions (waiting_since) WHERE state = 'OPEN';
CREATE INDEX ON concatenation.sessions (chunk_time) WHERE state = 'OPEN';
CREATE INDEX ON concatenation.sessions USING gin (labels jsonb_path_ops);

-- What has come. Chunks that came together share an object.
CREATE TABLE concatenation.chunks (
    session_id    uuid NOT NULL REFERENCES concatenation.sessions ON DELETE CASCADE,
    sequence      bigint NOT NULL CHECK (sequence >= 0),
    sha256        bytea NOT NULL,
    size_bytes    integer NOT NULL CHECK (size_bytes > 0),
    object_key    text NOT NULL,
    object_offset integer NOT NULL CHECK (object_offset >= 0),
    -- Of a container that is cut anywhere: where it lies in the container, once it is in order.
    start_byte    bigint,
    PRIMARY KEY (session_id, sequence)
);
CREATE INDEX ON concatenation.chunks (session_id, start_byte) WHERE start_byte IS NOT NULL;

-- The recording: runs that follow one another. Without an object a run is silence.
CREATE TABLE concatenation.pieces (
    session_id    uuid NOT NULL REFERENCES concatenation.sessions ON DELETE CASCADE,
    start_frame   bigint NOT NULL CHECK (start_frame >= 0),
    frame_count   bigint NOT NULL CHECK (frame_count > 0),
    object_key    text,
    object_offset integer NOT NULL CHECK (object_offset >= 0),
    PRIMARY KEY (session_id, start_frame)
);

-- Runs of at least 5 MiB that were joined, for the store to copy by itself.
CREATE TABLE concatenation.parts (
    session_id  uuid NOT NULL REFERENCES concatenation.sessions ON DELETE CASCADE,
    number      integer NOT NULL CHECK (number >= 0),
    start_frame bigint NOT NULL,
    frame_count bigint NOT NULL CHECK (frame_count > 0),
    object_key  text NOT NULL UNIQUE,
    PRIMARY KEY (session_id, number)
);

-- Chunks that were waited for in vain, or can't be decoded.
CREATE TABLE concatenation.gaps (
    session_id     uuid NOT NULL REFERENCES concatenation.sessions ON DELETE CASCADE,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL CHECK (last_sequence >= first_sequence),
    -- Null until the container's chunks before it are decoded.
    start_frame    bigint,
    frame_count    bigint NOT NULL DEFAULT 0,
    cause          text NOT NULL CHECK (cause IN ('MISSING', 'UNDECODABLE')),
    PRIMARY KEY (session_id, first_sequence)
);

-- The log of each session. Rows are written with the change they tell of, and do not change.
CREATE TABLE concatenation.events (
    session_id  uuid NOT NULL REFERENCES concatenation.sessions ON DELETE CASCADE,
    revision    bigint NOT NULL CHECK (revision > 0),
    payload     bytea NOT NULL,
    published   boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, revision)
);
CREATE INDEX ON concatenation.events (create_time, session_id, revision) WHERE NOT published;

CREATE TABLE concatenation.request_ids (
    tenant      text NOT NULL DEFAULT 'default',
    request_id  uuid NOT NULL,
    fingerprint text NOT NULL,
    session_id  uuid NOT NULL REFERENCES concatenation.sessions ON DELETE CASCADE,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, request_id)
);
CREATE INDEX ON concatenation.request_ids (session_id);

-- Bytes that must go: all below a prefix. Twice, in case a slow writer came after.
CREATE TABLE concatenation.removals (
    removal_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    object_prefix text NOT NULL,
    due_time      timestamptz NOT NULL DEFAULT now(),
    done_once     boolean NOT NULL DEFAULT false
);
CREATE INDEX ON concatenation.removals (due_time);
"""

RULES = """
CREATE FUNCTION concatenation.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.%: %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER state_is_final BEFORE UPDATE ON concatenation.sessions FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND OLD.state <> 'OPEN')
    EXECUTE FUNCTION concatenation.refuse('a session that has ended stays as it is');

CREATE TRIGGER tokens_only_rise BEFORE UPDATE ON concatenation.sessions FOR EACH ROW
    WHEN (NEW.epoch < OLD.epoch OR NEW.attempt < OLD.attempt)
    EXECUTE FUNCTION concatenation.refuse('fencing tokens only rise');

CREATE TRIGGER recording_only_grows BEFORE UPDATE ON concatenation.sessions FOR EACH ROW
    WHEN (NEW.frame_count < OLD.frame_count OR NEW.next_sequence < OLD.next_sequence
        OR NEW.live_frame_count < OLD.live_frame_count
        OR (OLD.drained AND NEW.frame_count <> OLD.frame_count))
    EXECUTE FUNCTION concatenation.refuse('a recording only grows, and not after its end');

CREATE TRIGGER chunks_never_change BEFORE UPDATE ON concatenation.chunks FOR EACH ROW
    WHEN ((NEW.sha256, NEW.size_bytes, NEW.object_key, NEW.object_offset)
        IS DISTINCT FROM (OLD.sha256, OLD.size_bytes, OLD.object_key, OLD.object_offset)
        OR OLD.start_byte IS NOT NULL)
    EXECUTE FUNCTION concatenation.refuse('a chunk never changes');

CREATE TRIGGER pieces_never_change BEFORE UPDATE ON concatenation.pieces FOR EACH ROW
    EXECUTE FUNCTION concatenation.refuse('a piece never changes');

CREATE TRIGGER only_published_changes BEFORE UPDATE ON concatenation.events FOR EACH ROW
    WHEN (NOT NEW.published OR (NEW.session_id, NEW.revision, NEW.payload)
        IS DISTINCT FROM (OLD.session_id, OLD.revision, OLD.payload))
    EXECUTE FUNCTION concatenation.refuse('an event does not change');
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(RULES)
