"""The SQL of the upload service."""

from __future__ import annotations

from dataclasses import fields

from steno.upload.domain import FIRST_PAUSE, LONGEST_PAUSE, Audio, Lease, Slice, Upload


def _columns(kind: type, *, without: str = "") -> str:
    return ", ".join(field.name for field in fields(kind) if field.name != without)


UPLOAD, SLICE = _columns(Upload), _columns(Slice, without="gaps")

# A part of statements: the columns that a lease is read from.
LEASE = _columns(Lease)

# A part of statements: the pause that follows when a preparation fails once more.
PAUSE = f"""least(interval '{LONGEST_PAUSE.total_seconds()} seconds',
    interval '{FIRST_PAUSE.total_seconds()} seconds' * power(2, least(failure_count, 20)))"""

# A part of statements: when the next attempt may begin. A lease that ran out was held by a process
# that died or hung: that is a failure.
NEXT_ATTEMPT_TIME = f"CASE WHEN lease_until IS NULL THEN not_before ELSE lease_until + {PAUSE} END"

# A part of statements: the columns that an audio is read from.
AUDIO = _columns(Audio).replace("next_attempt_time", f"{NEXT_ATTEMPT_TIME} AS next_attempt_time")

# Begins an upload, if there is room among all and among those of its tenant.
ADD_UPLOAD = f"""
INSERT INTO upload.uploads (tenant, upload_id, filename, size_bytes, content_type, sha256,
                            part_size_bytes, object_key, multipart_id, expire_time, check_time)
SELECT %(tenant)s, %(upload_id)s, %(filename)s, %(size_bytes)s, %(content_type)s, %(sha256)s,
       %(part_size_bytes)s, %(object_key)s, %(multipart_id)s, now() + %(expiry)s, now() + %(idle)s
WHERE (SELECT count(*) FROM upload.uploads WHERE state = 'OPEN') < %(max_open)s
  AND (SELECT count(*) FROM upload.uploads WHERE tenant = %(tenant)s AND state = 'OPEN')
      < %(tenant_max_open)s
RETURNING {UPLOAD}
"""

# How many uploads a tenant has open.
COUNT_OPEN_UPLOADS = """
SELECT count(*) FROM upload.uploads WHERE tenant = %(tenant)s AND state = 'OPEN'
"""

# Remembers what a request led to: as the default tenant's, whoever's it is, for the version before
# finds no other.
ADD_REQUEST_ID = """
INSERT INTO upload.request_ids (request_id, fingerprint, upload_id, audio_id)
VALUES (%(request_id)s, %(fingerprint)s, %(upload_id)s, %(audio_id)s)
"""

# What a request of a tenant has led to. The version after this one may remember it as the tenant's.
FIND_REQUEST_ID = """
SELECT fingerprint, upload_id, audio_id FROM upload.request_ids
WHERE tenant IN (%(tenant)s, 'default') AND request_id = %(request_id)s
ORDER BY tenant = 'default' LIMIT 1
"""

# One upload.
GET_UPLOAD = f"SELECT {UPLOAD} FROM upload.uploads WHERE upload_id = %(upload_id)s"

# Whose an upload is.
TENANT_OF_UPLOAD = "SELECT tenant FROM upload.uploads WHERE upload_id = %(upload_id)s"

# Moves an open upload to a new place, unless that was done meanwhile.
RESTART_UPLOAD = """
UPDATE upload.uploads
SET object_key = %(new_key)s, multipart_id = %(new_multipart_id)s, check_time = NULL
WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND object_key = %(object_key)s
RETURNING upload_id
"""

# Gives an open upload up.
ABORT_UPLOAD = """
UPDATE upload.uploads SET state = 'ABORTED'
WHERE upload_id = %(upload_id)s AND state = 'OPEN'
RETURNING object_key, multipart_id
"""

# Gives up uploads that were open for too long, and forgets those that ended long ago. What a
# request_id led to goes with its upload.
EXPIRE_UPLOADS = """
WITH expired AS (
    UPDATE upload.uploads SET state = 'EXPIRED'
    WHERE state = 'OPEN' AND expire_time <= now()
    RETURNING object_key, multipart_id
), forgotten AS (
    DELETE FROM upload.uploads
    WHERE state IN ('ABORTED', 'EXPIRED') AND expire_time <= now() - %(kept)s
)
INSERT INTO upload.removals (object_key, multipart_id, due_time)
SELECT object_key, multipart_id, now() FROM expired
"""

# Some open uploads of which it is time to see whether anything has landed.
IDLE_UPLOADS = f"""
SELECT {UPLOAD} FROM upload.uploads WHERE state = 'OPEN' AND check_time <= now()
ORDER BY check_time LIMIT 100
"""

# Something of an upload has landed.
CHECKED_UPLOAD = """
UPDATE upload.uploads SET check_time = NULL WHERE upload_id = %(upload_id)s AND state = 'OPEN'
"""

# What of an upload has landed could not be seen.
CHECK_UPLOAD_LATER = """
UPDATE upload.uploads SET check_time = now() + interval '10 minutes'
WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND check_time IS NOT NULL
"""

# Gives up an upload, unless it has ended or was restarted meanwhile.
EXPIRE_UPLOAD = """
WITH expired AS (
    UPDATE upload.uploads SET state = 'EXPIRED'
    WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND object_key = %(object_key)s
    RETURNING object_key, multipart_id
)
INSERT INTO upload.removals (object_key, multipart_id, due_time)
SELECT object_key, multipart_id, now() FROM expired
"""

# Makes an audio of an open upload, unless it was restarted meanwhile.
COMPLETE_UPLOAD = f"""
WITH completed AS (
    UPDATE upload.uploads SET state = 'COMPLETED', audio_id = gen_random_uuid()
    WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND object_key = %(object_key)s
    RETURNING tenant, audio_id, filename, content_type, size_bytes, object_key
)
INSERT INTO upload.audio (tenant, audio_id, filename, content_type, size_bytes, sha256, object_key,
                          state, rejection_reason, rejection_message, trace)
SELECT tenant, audio_id, filename, content_type, size_bytes, %(sha256)s, object_key,
       %(state)s, %(rejection_reason)s, %(rejection_message)s, %(trace)s
FROM completed
RETURNING {AUDIO}
"""

# Makes an audio of bytes that are in the store.
ADD_AUDIO = f"""
INSERT INTO upload.audio (tenant, filename, content_type, size_bytes, sha256, object_key,
                          state, rejection_reason, rejection_message, trace, gaps)
VALUES (%(tenant)s, %(filename)s, %(content_type)s, %(size_bytes)s, %(sha256)s, %(object_key)s,
        %(state)s, %(rejection_reason)s, %(rejection_message)s, %(trace)s, %(gaps)s)
RETURNING {AUDIO}
"""

# One audio.
GET_AUDIO = f"SELECT {AUDIO} FROM upload.audio WHERE audio_id = %(audio_id)s"

# Whose an audio is.
TENANT_OF_AUDIO = "SELECT tenant FROM upload.audio WHERE audio_id = %(audio_id)s"

# A page of a tenant's audio, newest first.
LIST_AUDIO = f"""
SELECT {AUDIO} FROM upload.audio
WHERE tenant = %(tenant)s
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(before_time)s::timestamptz IS NULL
       OR (create_time, audio_id) < (%(before_time)s, %(before_id)s::uuid))
ORDER BY create_time DESC, audio_id DESC
LIMIT %(limit)s
"""

# Some of each tenant's audio that was made long ago. The first tenant's, then the next one's, and
# so on: the index of audio begins with the tenant.
OLD_AUDIO = """
WITH RECURSIVE tenants AS (
    SELECT min(tenant) AS tenant FROM upload.audio
    UNION ALL
    SELECT (SELECT min(tenant) FROM upload.audio WHERE tenant > tenants.tenant)
    FROM tenants WHERE tenants.tenant IS NOT NULL
)
SELECT old.audio_id FROM tenants, LATERAL (
    SELECT audio_id FROM upload.audio
    WHERE tenant = tenants.tenant AND create_time < now() - %(age)s
    ORDER BY create_time LIMIT 100
) AS old
"""

# Removes an audio, its slices and its upload.
DELETE_AUDIO = f"DELETE FROM upload.audio WHERE audio_id = %(audio_id)s RETURNING {AUDIO}"

# The slices of an audio from an index on, each with the gaps in it.
LIST_SLICES = f"""
SELECT {SLICE},
    int8multirange(int8range(start_sample, start_sample + sample_count))
    * (SELECT gaps FROM upload.audio WHERE audio_id = %(audio_id)s) AS gaps
FROM upload.slices
WHERE audio_id = %(audio_id)s AND index >= %(start_index)s
ORDER BY index
"""

# A part of statements: a lease that ran out counts as a failure of whoever held it.
COUNT_INTERRUPTED = """
    failure_count = failure_count + (lease_until IS NOT NULL)::integer,
    failure_reason = CASE WHEN lease_until IS NULL THEN failure_reason ELSE %(reason)s END,
    failure_message = CASE WHEN lease_until IS NULL THEN failure_message ELSE %(message)s END
"""

# Takes the audio whose turn it is: the tenant of whose audio the least is being prepared, and of
# its audio the first, where a file counts as come later by 1 us for each byte. That is about what
# it takes to prepare it, so that short ones pass long ones, and none is passed for ever.
# `failures` is what the version before counts. At five it would remove the bytes.
LEASE_AUDIO = f"""
WITH held AS (
    SELECT tenant, count(*) AS places FROM upload.audio
    WHERE state = 'PREPARING' AND lease_until > now()
    GROUP BY tenant
), next AS (
    SELECT audio_id FROM upload.audio LEFT JOIN held USING (tenant)
    WHERE state = 'PREPARING' AND {NEXT_ATTEMPT_TIME} <= now()
      AND (%(below)s::bigint IS NULL OR sample_count < %(below)s)
    ORDER BY coalesce(places, 0), create_time + size_bytes * interval '1 microsecond'
    LIMIT 1
    FOR UPDATE OF audio SKIP LOCKED
)
UPDATE upload.audio
SET attempt = attempt + 1, failures = -1000000, lease_until = now() + %(lease)s, {COUNT_INTERRUPTED}
WHERE audio_id = (SELECT audio_id FROM next)
RETURNING {LEASE}
"""

# Lets the next attempt begin now, unless one is being made.
RETRY_AUDIO = f"""
UPDATE upload.audio SET lease_until = NULL, not_before = now(), {COUNT_INTERRUPTED}
WHERE audio_id = %(audio_id)s AND state = 'PREPARING'
  AND (lease_until IS NULL OR lease_until <= now())
RETURNING attempt
"""

# A part of statements: what every write of a leaseholder asks first. The fencing token stands for
# the lease: one that ran out is good for as long as nobody else has taken it.
HELD = """
audio_id = %(audio_id)s AND attempt = %(attempt)s
AND state = 'PREPARING' AND lease_until IS NOT NULL
"""

# Keeps a lease.
RENEW_LEASE = f"UPDATE upload.audio SET lease_until = now() + %(lease)s WHERE {HELD} RETURNING 1"

# Adds the next slice, and forgives what failed before it.
RECORD_SLICE = f"""
WITH held AS (
    UPDATE upload.audio
    SET slice_count = slice_count + 1,
        sample_count = sample_count + %(sample_count)s,
        failure_count = 0, failure_reason = '', failure_message = '',
        update_time = now()
    WHERE {HELD} AND slice_count = %(index)s AND sample_count = %(start_sample)s
    RETURNING audio_id, tenant
)
INSERT INTO upload.slices (audio_id, tenant, {SLICE})
SELECT audio_id, tenant, %(index)s, %(start_sample)s, %(sample_count)s, %(speech_sample_count)s,
       %(object_key)s, %(left_context_sample_count)s, %(right_context_sample_count)s,
       %(context_object_key)s
FROM held
RETURNING 1
"""

# All slices are there.
FINISH_AUDIO = f"""
UPDATE upload.audio
SET state = 'READY', lease_until = NULL, update_time = now(),
    container = %(container)s, codec = %(codec)s, sample_rate_hertz = %(sample_rate_hertz)s,
    channel_count = %(channel_count)s, truncated = %(truncated)s
WHERE {HELD}
RETURNING {AUDIO}
"""

# The audio can't be used.
REJECT_AUDIO = f"""
UPDATE upload.audio
SET state = 'REJECTED', lease_until = NULL, update_time = now(),
    rejection_reason = %(reason)s, rejection_message = %(message)s,
    slice_count = 0, sample_count = 0, purge_time = now() + %(kept)s::interval
WHERE {HELD}
RETURNING {AUDIO}
"""

# Forgets the slices of an audio.
DELETE_SLICES = "DELETE FROM upload.slices WHERE audio_id = %(audio_id)s"

# Ends a lease after a failure that counts; the pause grows with each.
FAIL_LEASE = f"""
UPDATE upload.audio
SET lease_until = NULL, not_before = now() + {PAUSE}, update_time = now(),
    failure_count = failure_count + 1, failure_reason = %(reason)s, failure_message = %(message)s
WHERE {HELD}
RETURNING 1
"""

# Ends a lease after a failure that does not count.
PUT_OFF_LEASE = f"""
UPDATE upload.audio
SET lease_until = NULL, not_before = now() + %(pause)s, update_time = now(),
    failure_reason = %(reason)s, failure_message = %(message)s
WHERE {HELD}
RETURNING 1
"""

# Ends a lease without a failure.
HAND_BACK_LEASE = f"""
UPDATE upload.audio SET lease_until = NULL, not_before = now()
WHERE {HELD}
RETURNING 1
"""

# Audio that could be prepared now.
LIST_UNPREPARED = f"""
SELECT audio_id, attempt, trace FROM upload.audio
WHERE state = 'PREPARING' AND {NEXT_ATTEMPT_TIME} <= now()
ORDER BY not_before
LIMIT 200
"""

# How much audio waits after a failure.
COUNT_PARKED = """
SELECT count(*) AS parked FROM upload.audio WHERE state = 'PREPARING' AND failure_reason <> ''
"""
