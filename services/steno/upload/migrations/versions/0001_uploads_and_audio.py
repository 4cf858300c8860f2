"""Uploads, audio, slices, and the bytes that must go."""

from alembic import op

revision = "upload_0001"
down_revision = None

SCHEMA = """
-- A file on its way in. Its bytes are in S3, in the parts of a multipart upload.
CREATE TABLE upload.uploads (
    upload_id       uuid PRIMARY KEY,
    tenant          text NOT NULL DEFAULT 'default',
    filename        text NOT NULL,
    size_bytes      bigint NOT NULL CHECK (size_bytes >= 0),
    content_type    text NOT NULL,
    sha256          text NOT NULL CHECK (sha256 ~ '^([0-9a-f]{64})?$'),
    state           text NOT NULL DEFAULT 'OPEN'
                    CHECK (state IN ('OPEN', 'COMPLETED', 'ABORTED', 'EXPIRED')),
    part_size_bytes bigint NOT NULL CHECK (part_size_bytes >= 5242880),
    object_key      text NOT NULL UNIQUE,
    multipart_id    text CHECK ((multipart_id IS NULL) = (size_bytes = 0)),
    audio_id        uuid UNIQUE CHECK ((audio_id IS NOT NULL) = (state = 'COMPLETED')),
    create_time     timestamptz NOT NULL DEFAULT now(),
    expire_time     timestamptz NOT NULL
);
CREATE INDEX ON upload.uploads (tenant) WHERE state = 'OPEN';
CREATE INDEX ON upload.uploads (expire_time) WHERE state = 'OPEN';

-- A stored recording, and the lease of the process that prepares it.
CREATE TABLE upload.audio (
    audio_id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant            text NOT NULL DEFAULT 'default',
    filename          text NOT NULL,
    content_type      text NOT NULL,
    size_bytes        bigint NOT NULL CHECK (size_bytes >= 0),
    sha256            text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    object_key        text NOT NULL UNIQUE,
    state             text NOT NULL CHECK (state IN ('PREPARING', 'READY', 'REJECTED')),
    rejection_reason  text CHECK ((rejection_reason IS NOT NULL) = (state = 'REJECTED')),
    rejection_message text CHECK ((rejection_message IS NOT NULL) = (state = 'REJECTED')),
    container         text NOT NULL DEFAULT '',
    codec             text NOT NULL DEFAULT '',
    sample_rate_hertz integer NOT NULL DEFAULT 0,
    channel_count     integer NOT NULL DEFAULT 0,
    truncated         boolean NOT NULL DEFAULT false,
    -- What is cut so far: slices follow one another without gap or overlap.
    slice_count       integer NOT NULL DEFAULT 0,
    sample_count      bigint NOT NULL DEFAULT 0,
    create_time       timestamptz NOT NULL DEFAULT now(),
    update_time       timestamptz NOT NULL DEFAULT now(),
    -- Fencing token: each lease raises it.
    attempt           integer NOT NULL DEFAULT 0,
    -- Leases that ended badly.
    failures          integer NOT NULL DEFAULT 0,
    -- Until then one process works on it; null if none does.
    lease_until       timestamptz CHECK (lease_until IS NULL OR state = 'PREPARING'),
    -- Not leased before that: a pause after a failure.
    not_before        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON upload.audio (tenant, create_time DESC, audio_id DESC);
CREATE INDEX ON upload.audio (not_before) WHERE state = 'PREPARING';

ALTER TABLE upload.uploads
    ADD FOREIGN KEY (audio_id) REFERENCES upload.audio ON DELETE CASCADE;

-- A piece of a recording for one worker.
CREATE TABLE upload.slices (
    audio_id            uuid NOT NULL REFERENCES upload.audio ON DELETE CASCADE,
    index               integer NOT NULL CHECK (index >= 0),
    tenant              text NOT NULL DEFAULT 'default',
    start_sample        bigint NOT NULL CHECK (start_sample >= 0),
    sample_count        bigint NOT NULL CHECK (sample_count > 0),
    speech_sample_count bigint NOT NULL CHECK (speech_sample_count BETWEEN 0 AND sample_count),
    object_key          text NOT NULL UNIQUE,
    create_time         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (audio_id, index)
);

-- What a request_id led to: an upload, or with UploadAudio an audio.
CREATE TABLE upload.request_ids (
    tenant      text NOT NULL DEFAULT 'default',
    request_id  uuid NOT NULL,
    fingerprint text NOT NULL,
    upload_id   uuid REFERENCES upload.uploads ON DELETE CASCADE,
    audio_id    uuid REFERENCES upload.audio ON DELETE CASCADE,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, request_id),
    CHECK (num_nonnulls(upload_id, audio_id) = 1)
);
CREATE INDEX ON upload.request_ids (upload_id);
CREATE INDEX ON upload.request_ids (audio_id);

-- Bytes that must go from S3. Every byte there is named by an upload, an audio, a slice, or a row
-- here, so that none is forgotten when a process dies.
CREATE TABLE upload.removals (
    removal_id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant       text NOT NULL DEFAULT 'default',
    -- One object, or with a slash at its end all below it.
    object_key   text NOT NULL,
    multipart_id text,
    due_time     timestamptz NOT NULL,
    -- They were removed once, and are removed again in case a slow writer came after.
    done_once    boolean NOT NULL DEFAULT false,
    create_time  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON upload.removals (due_time);
"""

RULES = """
CREATE FUNCTION upload.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.%: %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER state_is_final BEFORE UPDATE ON upload.uploads FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND OLD.state <> 'OPEN')
    EXECUTE FUNCTION upload.refuse('an upload that has ended stays as it is');

CREATE TRIGGER state_is_final BEFORE UPDATE ON upload.audio FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND OLD.state <> 'PREPARING')
    EXECUTE FUNCTION upload.refuse('an audio that is READY or REJECTED stays as it is');

CREATE TRIGGER attempt_only_rises BEFORE UPDATE ON upload.audio FOR EACH ROW
    WHEN (NEW.attempt < OLD.attempt)
    EXECUTE FUNCTION upload.refuse('the fencing token only rises');

CREATE TRIGGER slices_never_change BEFORE UPDATE ON upload.slices FOR EACH ROW
    EXECUTE FUNCTION upload.refuse('a slice never changes');
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(RULES)
