"""Every SQL statement of this service.

The columns of a session come from the lists in rows.py, so that a field is written wherever it is
read.
"""

from __future__ import annotations

from steno.concatenation.rows import CONFIG, SAVED, SESSION
from steno.platform.database import assignments, listed, placeholders

_SESSION = listed(SESSION)

# Opens a session; no row comes back if the server or the tenant has too many open ones.
ADD_SESSION = f"""
INSERT INTO concatenation.sessions
    (session_id, display_name, labels, tenant, {listed(CONFIG)}, trace)
SELECT
    %(session_id)s, %(display_name)s, %(labels)s, %(tenant)s, {placeholders(CONFIG)}, %(trace)s
WHERE (SELECT count(*) FROM concatenation.sessions WHERE state = 'OPEN') < %(max_open)s
    AND (SELECT count(*) FROM concatenation.sessions WHERE tenant = %(tenant)s AND state = 'OPEN')
        < %(tenant_max_open)s
RETURNING {_SESSION}
"""

# Notes the request_id of a call that opened a session.
ADD_REQUEST_ID = """
INSERT INTO concatenation.request_ids (tenant, request_id, fingerprint, session_id)
VALUES (%(tenant)s, %(request_id)s, %(fingerprint)s, %(session_id)s)
"""

# The session that a call with this request_id opened.
FIND_REQUEST_ID = """
SELECT fingerprint, session_id FROM concatenation.request_ids
WHERE tenant = %(tenant)s AND request_id = %(request_id)s
"""

# One session.
GET_SESSION = f"SELECT {_SESSION} FROM concatenation.sessions WHERE session_id = %(session_id)s"

# Several sessions.
GET_SESSIONS = (
    f"SELECT {_SESSION} FROM concatenation.sessions WHERE session_id = ANY(%(session_ids)s)"
)

# One session, locked until the end of the transaction.
LOCK_SESSION = f"{GET_SESSION} FOR UPDATE"

# One session, locked, if this attempt is the last that took its lease.
LOCK_HELD_SESSION = f"{GET_SESSION} AND attempt = %(attempt)s FOR UPDATE"

# Whose a session is.
TENANT_OF_SESSION = """
SELECT tenant FROM concatenation.sessions WHERE session_id = %(session_id)s
"""

# A page of a tenant's sessions, newest first.
LIST_SESSIONS = f"""
SELECT {_SESSION} FROM concatenation.sessions
WHERE tenant = %(tenant)s
    AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
    AND labels @> %(labels)s
    AND (%(before_time)s::timestamptz IS NULL
        OR (create_time, session_id) < (%(before_time)s, %(before_id)s::uuid))
ORDER BY create_time DESC, session_id DESC
LIMIT %(limit)s
"""

# Chunks of raw samples make a recording longer, whoever works on the session or fails to. Live
# results are progress only where all has failed: they go on beside what fails by itself.
_NO_PROGRESS = """
    (decoded_sequence, part_count, drained) = (%(decoded_sequence)s, %(part_count)s, %(drained)s)
    AND ((live_frame_count, live_done) = (%(live_frame_count)s, %(live_done)s)
        OR failure_reason NOT IN ('DEPENDENCY_UNAVAILABLE', 'WORKER_LOST'))
    AND (audio_id, job_id, job_error)
        IS NOT DISTINCT FROM (%(audio_id)s::uuid, %(job_id)s::uuid, %(job_error)s)
    AND (encoding <> 'CONTAINER' OR frame_count = %(frame_count)s)
"""

# Writes what a locked session has become.
SAVE_SESSION = f"""
UPDATE concatenation.sessions SET
    {assignments(SAVED)},
    failure_count = CASE WHEN {_NO_PROGRESS} THEN failure_count ELSE 0 END,
    end_time = CASE WHEN %(state)s = 'OPEN' THEN NULL ELSE coalesce(end_time, now()) END,
    waiting_since = CASE
        WHEN %(state)s <> 'OPEN' OR %(max_sequence)s < %(next_sequence)s THEN NULL
        WHEN next_sequence <> %(next_sequence)s OR waiting_since IS NULL THEN clock_timestamp()
        ELSE waiting_since END,
    chunk_time = CASE WHEN %(has_chunks)s THEN clock_timestamp() ELSE chunk_time END,
    update_time = clock_timestamp()
WHERE session_id = %(session_id)s
RETURNING {_SESSION}
"""

# Removes a session and all rows that belong to it.
DELETE_SESSION = """
DELETE FROM concatenation.sessions WHERE session_id = %(session_id)s RETURNING session_id
"""

# Digests of those chunks that are there already.
KNOWN_CHUNKS = """
SELECT sequence, sha256 FROM concatenation.chunks
WHERE session_id = %(session_id)s AND sequence = ANY(%(sequences)s)
"""

# New chunks, whose bytes are in the object store.
ADD_CHUNKS = """
INSERT INTO concatenation.chunks
    (session_id, sequence, sha256, size_bytes, object_key, object_offset)
SELECT %(session_id)s, * FROM unnest(
    %(sequences)s::bigint[], %(sha256s)s::bytea[], %(sizes)s::integer[], %(keys)s::text[],
    %(offsets)s::integer[])
"""

# Chunks between two sequences, in order.
CHUNKS_FROM = """
SELECT sequence, sha256, size_bytes, object_key, object_offset FROM concatenation.chunks
WHERE session_id = %(session_id)s AND sequence >= %(sequence)s AND sequence < %(before)s
ORDER BY sequence LIMIT %(limit)s
"""

# The first chunk from a sequence on.
NEXT_CHUNK_FROM = """
SELECT sequence, size_bytes FROM concatenation.chunks
WHERE session_id = %(session_id)s AND sequence >= %(sequence)s ORDER BY sequence LIMIT 1
"""

# Length of the chunks from a sequence on.
HELD_BYTES = """
SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes FROM concatenation.chunks
WHERE session_id = %(session_id)s AND sequence >= %(sequence)s
"""

# Where chunks of a container lie in it.
PLACE_CHUNKS = """
UPDATE concatenation.chunks SET start_byte = placed.start_byte
FROM unnest(%(sequences)s::bigint[], %(start_bytes)s::bigint[]) AS placed (sequence, start_byte)
WHERE session_id = %(session_id)s AND chunks.sequence = placed.sequence
"""

# The last chunk of a container that begins at or before a byte of it.
CHUNK_AT_BYTE = """
SELECT sequence, sha256, size_bytes, object_key, object_offset, start_byte
FROM concatenation.chunks
WHERE session_id = %(session_id)s AND start_byte <= %(byte)s
ORDER BY start_byte DESC LIMIT 1
"""

# New runs of a recording.
ADD_PIECES = """
INSERT INTO concatenation.pieces
    (session_id, start_frame, frame_count, object_key, object_offset)
SELECT %(session_id)s, * FROM unnest(
    %(starts)s::bigint[], %(counts)s::bigint[], %(keys)s::text[], %(offsets)s::integer[])
"""

# The runs that a stretch of a recording consists of, in order.
PIECES_BETWEEN = """
SELECT start_frame, frame_count, object_key, object_offset FROM concatenation.pieces
WHERE session_id = %(session_id)s AND start_frame < %(end_frame)s AND start_frame >= (
    SELECT coalesce(max(start_frame), 0) FROM concatenation.pieces
    WHERE session_id = %(session_id)s AND start_frame <= %(start_frame)s
)
ORDER BY start_frame
"""

# A new joined part.
ADD_PART = """
INSERT INTO concatenation.parts (session_id, number, start_frame, frame_count, object_key)
VALUES (%(session_id)s, %(number)s, %(start_frame)s, %(frame_count)s, %(object_key)s)
"""

# The joined parts of a recording, in order.
LIST_PARTS = """
SELECT number, start_frame, frame_count, object_key FROM concatenation.parts
WHERE session_id = %(session_id)s ORDER BY number
"""

# A new gap, or the place and the length of one that had none yet.
ADD_GAP = """
INSERT INTO concatenation.gaps
    (session_id, first_sequence, last_sequence, start_frame, frame_count, cause)
VALUES (%(session_id)s, %(first_sequence)s, %(last_sequence)s, %(start_frame)s, %(frame_count)s,
    %(cause)s)
ON CONFLICT (session_id, first_sequence) DO UPDATE
SET start_frame = excluded.start_frame, frame_count = excluded.frame_count
"""

# The gap that begins with a chunk.
GAP_AT = """
SELECT first_sequence, last_sequence FROM concatenation.gaps
WHERE session_id = %(session_id)s AND first_sequence = %(sequence)s
"""

# The same, if it has no place in the recording yet.
UNPLACED_GAP = f"{GAP_AT} AND start_frame IS NULL"

# Gaps of a container's stream between two sequences, with the chunks around them.
MISSING_CHUNKS = """
SELECT
    gaps.first_sequence, gaps.last_sequence, following.start_byte,
    CASE WHEN gaps.first_sequence > 1 THEN before.size_bytes ELSE following.size_bytes END
        AS usual_bytes
FROM concatenation.gaps
JOIN concatenation.chunks AS following
    ON following.session_id = gaps.session_id AND following.sequence = gaps.last_sequence + 1
LEFT JOIN concatenation.chunks AS before
    ON before.session_id = gaps.session_id AND before.sequence = gaps.first_sequence - 1
WHERE gaps.session_id = %(session_id)s
    AND gaps.first_sequence >= %(first)s AND gaps.first_sequence < %(before)s
ORDER BY gaps.first_sequence
"""

# The gaps of a recording that have a place in it, in order.
LIST_GAPS = """
SELECT first_sequence, last_sequence, start_frame, frame_count, cause FROM concatenation.gaps
WHERE session_id = %(session_id)s AND start_frame IS NOT NULL
ORDER BY first_sequence LIMIT %(limit)s
"""

# New rows of the event log.
ADD_EVENTS = """
INSERT INTO concatenation.events (session_id, revision, payload)
SELECT %(session_id)s, * FROM unnest(%(revisions)s::bigint[], %(payloads)s::bytea[])
"""

# A session's events after a revision, in order.
EVENTS_AFTER = """
SELECT payload FROM concatenation.events
WHERE session_id = %(session_id)s AND revision > %(revision)s
ORDER BY revision LIMIT %(limit)s
"""

# Events of several sessions, each from a revision on, in order.
EVENTS_FROM = """
SELECT wanted.session_id, payload
FROM unnest(%(session_ids)s::uuid[], %(revisions)s::bigint[]) AS wanted (session_id, revision),
LATERAL (
    SELECT revision, payload FROM concatenation.events
    WHERE session_id = wanted.session_id AND revision >= wanted.revision
    ORDER BY revision LIMIT %(limit)s
) AS events
ORDER BY wanted.session_id, events.revision
"""

# The oldest events that NATS has not got, locked; another replica gets others.
UNPUBLISHED_EVENTS = """
SELECT session_id, revision, payload FROM concatenation.events WHERE NOT published
ORDER BY create_time, session_id, revision LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

# NATS has got an event.
MARK_PUBLISHED = """
UPDATE concatenation.events SET published = true
WHERE session_id = %(session_id)s AND revision = %(revision)s
"""

_IS_OVERDUE = "state = 'OPEN' AND waiting_since + gap_timeout <= clock_timestamp()"

# Open sessions that have waited for a chunk for too long.
OVERDUE_SESSIONS = f"SELECT session_id FROM concatenation.sessions WHERE {_IS_OVERDUE}"

# One of them, locked, if it still is overdue and nobody else is about to change it.
LOCK_OVERDUE_SESSION = f"{GET_SESSION} AND {_IS_OVERDUE} FOR UPDATE SKIP LOCKED"

_IS_IDLE = """
state = 'OPEN' AND coalesce(chunk_time, create_time) + idle_timeout <= clock_timestamp()
"""

# Open sessions to which no chunk has come for too long.
# Reads all open sessions, which are few. An index on chunk_time would have to be written with each
# chunk, and could not be used: each session has its own timeout.
IDLE_SESSIONS = f"SELECT session_id FROM concatenation.sessions WHERE {_IS_IDLE}"

# One of them, locked, if it still is idle and nobody else is about to change it.
LOCK_IDLE_SESSION = f"{GET_SESSION} AND {_IS_IDLE} FOR UPDATE SKIP LOCKED"

# No pause after the first failure that was a death, then 1, 3, 7 s, and so on.
_PAUSE = "least(%(longest_pause)s, interval '1 second' * (2 ^ least({failure_count}, 20) - 1))"

# Whether a lease has run out. It is asked often, and writes nothing.
ANY_LOST = """
SELECT EXISTS (
    SELECT FROM concatenation.sessions WHERE NOT finished AND lease_until <= clock_timestamp()
) AS lost
"""

# Parks sessions whose lease has run out.
# The attempt stays: whoever is only slow may write until another has taken the session.
PARK_LOST = f"""
UPDATE concatenation.sessions SET
    lease_until = NULL,
    failure_count = failure_count + 1,
    failure_reason = 'WORKER_LOST',
    failure_message = 'The replica that worked on the session has died, or fell silent.',
    not_before = clock_timestamp() + {_PAUSE.format(failure_count="failure_count")}
WHERE session_id IN (
    SELECT session_id FROM concatenation.sessions
    WHERE NOT finished AND lease_until <= clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
"""

# Leases sessions that nobody works on.
# Before its first chunk there is nothing to do, and whoever gets that chunk should be the one.
CLAIM_SESSIONS = f"""
UPDATE concatenation.sessions SET
    attempt = attempt + 1,
    lease_time = clock_timestamp(),
    lease_until = clock_timestamp() + %(lease)s
WHERE session_id IN (
    SELECT session_id FROM concatenation.sessions
    WHERE NOT finished AND not_before <= clock_timestamp() AND lease_until IS NULL
        AND (chunk_time IS NOT NULL OR state <> 'OPEN')
    ORDER BY not_before LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
RETURNING {_SESSION}, attempt, trace
"""

# Which of some leases are still held.
HELD_LEASES = """
SELECT session_id FROM concatenation.sessions
JOIN unnest(%(session_ids)s::uuid[], %(attempts)s::integer[]) AS held (session_id, attempt)
    USING (session_id, attempt)
WHERE lease_until IS NOT NULL
"""

# Keeps leases that are held.
# Rows that somebody has locked are passed over: they must not hold up the others.
RENEW_LEASES = f"""
UPDATE concatenation.sessions SET
    lease_until = clock_timestamp() + %(lease)s,
    failure_count = CASE WHEN lease_time <= clock_timestamp() - %(forgiven_after)s THEN 0
        ELSE failure_count END
WHERE session_id IN (
    {HELD_LEASES} FOR UPDATE OF sessions SKIP LOCKED
)
RETURNING session_id
"""

# Gives leases back; other replicas may take the sessions at once.
END_LEASES = f"""
UPDATE concatenation.sessions SET lease_until = NULL, not_before = clock_timestamp()
WHERE session_id IN (
    {HELD_LEASES} FOR UPDATE OF sessions SKIP LOCKED
)
"""

# Gives one lease back.
END_LEASE = """
UPDATE concatenation.sessions SET lease_until = NULL, not_before = clock_timestamp()
WHERE session_id = %(session_id)s AND attempt = %(attempt)s AND lease_until IS NOT NULL
"""

# Ends a lease after a failure, with a pause before the next try.
PARK_SESSION = f"""
UPDATE concatenation.sessions SET
    lease_until = NULL,
    failure_count = failure_count + 1,
    failure_reason = %(reason)s,
    failure_message = %(message)s,
    not_before = clock_timestamp() + {_PAUSE.format(failure_count="failure_count + 1")}
WHERE session_id = %(session_id)s AND attempt = %(attempt)s AND lease_until IS NOT NULL
"""

# Ends the pause before the next try.
RETRY_NOW = """
UPDATE concatenation.sessions SET not_before = clock_timestamp()
WHERE session_id = %(session_id)s AND NOT finished AND not_before > clock_timestamp()
"""

# Has bytes removed after a while, unless their removal is noted already.
ADD_LATER_REMOVAL = """
INSERT INTO concatenation.removals (object_prefix, due_time)
SELECT %(object_prefix)s, now() + %(after)s
WHERE NOT EXISTS (
    SELECT 1 FROM concatenation.removals WHERE object_prefix = %(object_prefix)s
)
"""

# Finished sessions whose chunks, pieces and parts nobody needs any more.
# Retries of chunks are answered for some time after a session was finished: that changes it last,
# maybe long after its end.
UNTRIMMED_SESSIONS = """
SELECT session_id FROM concatenation.sessions
WHERE finished AND NOT trimmed
    AND end_time <= now() - %(after)s AND update_time <= now() - %(after)s
ORDER BY end_time LIMIT 1000
"""

# Removes some of a session's chunks, pieces or parts.
TRIM_SESSION = {
    table: f"""
DELETE FROM concatenation.{table} WHERE session_id = %(session_id)s AND {key} IN (
    SELECT {key} FROM concatenation.{table} WHERE session_id = %(session_id)s LIMIT %(limit)s
)
"""
    for table, key in (("chunks", "sequence"), ("pieces", "start_frame"), ("parts", "number"))
}

# A session has no chunks, pieces and parts any more.
# Not while another replica is still at it, which may die.
MARK_TRIMMED = """
UPDATE concatenation.sessions SET trimmed = true
WHERE session_id = %(session_id)s
    AND NOT EXISTS (SELECT FROM concatenation.chunks WHERE session_id = %(session_id)s)
    AND NOT EXISTS (SELECT FROM concatenation.pieces WHERE session_id = %(session_id)s)
    AND NOT EXISTS (SELECT FROM concatenation.parts WHERE session_id = %(session_id)s)
"""

# Finished sessions that ended long ago.
OLD_SESSIONS = """
SELECT session_id FROM concatenation.sessions
WHERE finished AND end_time <= now() - %(after)s
ORDER BY end_time LIMIT 1000
"""

# How many sessions there are, and since when the oldest waits.
STATISTICS = """
SELECT
    count(*) FILTER (WHERE state = 'OPEN') AS open,
    count(*) FILTER (WHERE state <> 'OPEN') AS ending,
    count(*) FILTER (WHERE failure_count > 0) AS parked,
    coalesce(extract(epoch FROM now() - min(end_time)), 0)::double precision AS oldest_ending,
    coalesce(extract(epoch FROM now() - min(waiting_since)), 0)::double precision AS oldest_missing
FROM concatenation.sessions WHERE NOT finished
"""
