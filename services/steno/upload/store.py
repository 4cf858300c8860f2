"""The tables of the upload service, in SQL. One method is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Range

from steno.platform.database import Connection, Pool, every, one
from steno.platform.errors import ResourceExhausted
from steno.platform.telemetry import trace_headers
from steno.platform.tenancy import tenant
from steno.upload.domain import (
    FIRST_PAUSE,
    INTERRUPTED,
    LONGEST_PAUSE,
    Audio,
    AudioNotFound,
    AudioRejected,
    AudioState,
    Failure,
    Gap,
    Lease,
    NewUpload,
    ObjectTaken,
    Rejection,
    Removal,
    RequestIdReused,
    Slice,
    Source,
    StaleLease,
    StreamExpired,
    Upload,
    UploadNotFound,
    UploadNotOpen,
    UploadState,
    is_import,
)

Row = dict[str, Any]


def _columns(kind: type) -> str:
    return ", ".join(field.name for field in fields(kind))


UPLOAD, SLICE = _columns(Upload), _columns(Slice)
LEASE, REMOVAL = _columns(Lease), _columns(Removal)

# The pause that follows when a preparation fails once more.
PAUSE = f"""least(interval '{LONGEST_PAUSE.total_seconds()} seconds',
    interval '{FIRST_PAUSE.total_seconds()} seconds' * power(2, least(failure_count, 20)))"""

# A lease that ran out was held by a process that died or hung: that is a failure.
NEXT_ATTEMPT_TIME = f"CASE WHEN lease_until IS NULL THEN not_before ELSE lease_until + {PAUSE} END"

AUDIO = _columns(Audio).replace("next_attempt_time", f"{NEXT_ATTEMPT_TIME} AS next_attempt_time")

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

COUNT_OPEN_UPLOADS = """
SELECT count(*) FROM upload.uploads WHERE tenant = %(tenant)s AND state = 'OPEN'
"""

ADD_REQUEST_ID = """
INSERT INTO upload.request_ids (request_id, fingerprint, upload_id, audio_id)
VALUES (%(request_id)s, %(fingerprint)s, %(upload_id)s, %(audio_id)s)
"""

FIND_REQUEST_ID = """
SELECT fingerprint, upload_id, audio_id FROM upload.request_ids
WHERE tenant = 'default' AND request_id = %(request_id)s
"""

GET_UPLOAD = f"SELECT {UPLOAD} FROM upload.uploads WHERE upload_id = %(upload_id)s"

RESTART_UPLOAD = """
UPDATE upload.uploads
SET object_key = %(new_key)s, multipart_id = %(new_multipart_id)s, check_time = NULL
WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND object_key = %(object_key)s
RETURNING upload_id
"""

ABORT_UPLOAD = """
UPDATE upload.uploads SET state = 'ABORTED'
WHERE upload_id = %(upload_id)s AND state = 'OPEN'
RETURNING object_key, multipart_id
"""

# What a request_id led to goes with its upload.
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

IDLE_UPLOADS = f"""
SELECT {UPLOAD} FROM upload.uploads WHERE state = 'OPEN' AND check_time <= now()
ORDER BY check_time LIMIT 100
"""

CHECKED_UPLOAD = """
UPDATE upload.uploads SET check_time = NULL WHERE upload_id = %(upload_id)s AND state = 'OPEN'
"""

CHECK_UPLOAD_LATER = """
UPDATE upload.uploads SET check_time = now() + interval '10 minutes'
WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND check_time IS NOT NULL
"""

EXPIRE_UPLOAD = """
WITH expired AS (
    UPDATE upload.uploads SET state = 'EXPIRED'
    WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND object_key = %(object_key)s
    RETURNING object_key, multipart_id
)
INSERT INTO upload.removals (object_key, multipart_id, due_time)
SELECT object_key, multipart_id, now() FROM expired
"""

COMPLETE_UPLOAD = f"""
WITH completed AS (
    UPDATE upload.uploads SET state = 'COMPLETED', audio_id = gen_random_uuid()
    WHERE upload_id = %(upload_id)s AND state = 'OPEN' AND object_key = %(object_key)s
    RETURNING audio_id, filename, content_type, size_bytes, object_key
)
INSERT INTO upload.audio (audio_id, filename, content_type, size_bytes, sha256, object_key,
                          state, rejection_reason, rejection_message, trace)
SELECT audio_id, filename, content_type, size_bytes, %(sha256)s, object_key,
       %(state)s, %(rejection_reason)s, %(rejection_message)s, %(trace)s
FROM completed
RETURNING {AUDIO}
"""

ADD_AUDIO = f"""
INSERT INTO upload.audio (filename, content_type, size_bytes, sha256, object_key,
                          state, rejection_reason, rejection_message, trace, gaps)
VALUES (%(filename)s, %(content_type)s, %(size_bytes)s, %(sha256)s, %(object_key)s,
        %(state)s, %(rejection_reason)s, %(rejection_message)s, %(trace)s, %(gaps)s)
RETURNING {AUDIO}
"""

GET_AUDIO = f"SELECT {AUDIO} FROM upload.audio WHERE audio_id = %(audio_id)s"

LIST_AUDIO = f"""
SELECT {AUDIO} FROM upload.audio
WHERE tenant = 'default'
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(before_time)s::timestamptz IS NULL
       OR (create_time, audio_id) < (%(before_time)s, %(before_id)s::uuid))
ORDER BY create_time DESC, audio_id DESC
LIMIT %(limit)s
"""

OLD_AUDIO = """
SELECT audio_id FROM upload.audio WHERE tenant = 'default' AND create_time < now() - %(age)s
ORDER BY create_time LIMIT 100
"""

DELETE_AUDIO = f"DELETE FROM upload.audio WHERE audio_id = %(audio_id)s RETURNING {AUDIO}"

LIST_SLICES = f"""
SELECT {SLICE},
    int8multirange(int8range(start_sample, start_sample + sample_count))
    * (SELECT gaps FROM upload.audio WHERE audio_id = %(audio_id)s) AS gaps
FROM upload.slices
WHERE audio_id = %(audio_id)s AND index >= %(start_index)s
ORDER BY index
"""

ADD_REMOVAL = f"""
INSERT INTO upload.removals (object_key, multipart_id, due_time)
VALUES (%(object_key)s, %(multipart_id)s, now() + %(delay)s)
RETURNING {REMOVAL}
"""

# One that was claimed may have been done, in part at least.
CANCEL_REMOVAL = """
DELETE FROM upload.removals
WHERE removal_id = %(removal_id)s AND try_count = 0 AND NOT done_once
RETURNING 1
"""

# A claim ends by itself, so that a removal whose process died or whose store was away comes again;
# one that goes wrong again and again comes ever less often, yet at least once an hour.
CLAIM_REMOVALS = f"""
UPDATE upload.removals
SET try_count = try_count + 1,
    due_time = now() + least(interval '1 hour', interval '1 minute' * power(2, least(try_count, 6)))
WHERE removal_id IN (
    SELECT removal_id FROM upload.removals
    WHERE CASE WHEN %(removal_ids)s::uuid[] IS NULL THEN due_time <= now()
               ELSE removal_id = ANY(%(removal_ids)s) END
    ORDER BY due_time LIMIT 100
    FOR UPDATE SKIP LOCKED
)
RETURNING {REMOVAL}
"""

SETTLE_REMOVAL = """
WITH again AS (
    UPDATE upload.removals
    SET done_once = true, try_count = 0, due_time = now() + %(pause)s
    WHERE removal_id = %(removal_id)s AND NOT done_once
    RETURNING removal_id
)
DELETE FROM upload.removals
WHERE removal_id = %(removal_id)s AND removal_id NOT IN (SELECT removal_id FROM again)
"""

COUNT_INTERRUPTED = """
    failure_count = failure_count + (lease_until IS NOT NULL)::integer,
    failure_reason = CASE WHEN lease_until IS NULL THEN failure_reason ELSE %(reason)s END,
    failure_message = CASE WHEN lease_until IS NULL THEN failure_message ELSE %(message)s END
"""

# Whose turn it is: the tenant of whose audio the least is being prepared, and of its audio the
# first, where a file counts as come later by 1 us for each byte. That is about what it takes to
# prepare it, so that short ones pass long ones, and none is passed for ever.
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

RETRY_AUDIO = f"""
UPDATE upload.audio SET lease_until = NULL, not_before = now(), {COUNT_INTERRUPTED}
WHERE audio_id = %(audio_id)s AND state = 'PREPARING'
  AND (lease_until IS NULL OR lease_until <= now())
RETURNING attempt
"""

# What every write of a leaseholder asks first. The fencing token stands for the lease: one that
# ran out is good for as long as nobody else has taken it.
HELD = """
audio_id = %(audio_id)s AND attempt = %(attempt)s
AND state = 'PREPARING' AND lease_until IS NOT NULL
"""

RENEW_LEASE = f"UPDATE upload.audio SET lease_until = now() + %(lease)s WHERE {HELD} RETURNING 1"

RECORD_SLICE = f"""
WITH held AS (
    UPDATE upload.audio
    SET slice_count = slice_count + 1,
        sample_count = sample_count + %(sample_count)s,
        failure_count = 0, failure_reason = '', failure_message = '',
        update_time = now()
    WHERE {HELD} AND slice_count = %(index)s AND sample_count = %(start_sample)s
    RETURNING audio_id
)
INSERT INTO upload.slices (audio_id, {SLICE})
SELECT audio_id, %(index)s, %(start_sample)s, %(sample_count)s, %(speech_sample_count)s,
       %(object_key)s, %(left_context_sample_count)s, %(right_context_sample_count)s,
       %(context_object_key)s
FROM held
RETURNING 1
"""

FINISH_AUDIO = f"""
UPDATE upload.audio
SET state = 'READY', lease_until = NULL, update_time = now(),
    container = %(container)s, codec = %(codec)s, sample_rate_hertz = %(sample_rate_hertz)s,
    channel_count = %(channel_count)s, truncated = %(truncated)s
WHERE {HELD}
RETURNING {AUDIO}
"""

REJECT_AUDIO = f"""
UPDATE upload.audio
SET state = 'REJECTED', lease_until = NULL, update_time = now(),
    rejection_reason = %(reason)s, rejection_message = %(message)s,
    slice_count = 0, sample_count = 0, purge_time = now() + %(kept)s::interval
WHERE {HELD}
RETURNING {AUDIO}
"""

DELETE_SLICES = "DELETE FROM upload.slices WHERE audio_id = %(audio_id)s"

FAIL_LEASE = f"""
UPDATE upload.audio
SET lease_until = NULL, not_before = now() + {PAUSE}, update_time = now(),
    failure_count = failure_count + 1, failure_reason = %(reason)s, failure_message = %(message)s
WHERE {HELD}
RETURNING 1
"""

PUT_OFF_LEASE = f"""
UPDATE upload.audio
SET lease_until = NULL, not_before = now() + %(pause)s, update_time = now(),
    failure_reason = %(reason)s, failure_message = %(message)s
WHERE {HELD}
RETURNING 1
"""

HAND_BACK_LEASE = f"""
UPDATE upload.audio SET lease_until = NULL, not_before = now()
WHERE {HELD}
RETURNING 1
"""

LIST_UNPREPARED = f"""
SELECT audio_id, attempt, trace FROM upload.audio
WHERE state = 'PREPARING' AND {NEXT_ATTEMPT_TIME} <= now()
ORDER BY not_before
LIMIT 200
"""

COUNT_PARKED = """
SELECT count(*) AS parked FROM upload.audio WHERE state = 'PREPARING' AND failure_reason <> ''
"""

_ROOM_AFTER = timedelta(seconds=30)

ENDED_UPLOADS_KEPT = timedelta(days=7)
"""How long after its `expire_time` an upload that became no audio can still be asked for."""

SECOND_REMOVAL_AFTER = timedelta(hours=1)
"""Longer than any writer that lost its right to write can go on without noticing."""


def slice_prefix(audio_id: UUID) -> str:
    """Where the slices of an audio lie in the object store."""
    return f"slices/{audio_id}/"


class Store:
    """Uploads, audio, and what must be removed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # Uploads

    async def add_upload(
        self,
        new: NewUpload,
        *,
        upload_id: UUID,
        part_size_bytes: int,
        object_key: str,
        multipart_id: str | None,
        expiry: timedelta,
        idle: timedelta,
        max_open: int,
        tenant_max_open: int,
    ) -> Upload:
        """Records an upload; with a `request_id` that is known, answers the one it led to.

        Raises:
            ResourceExhausted: `max_open` are open, or `tenant_max_open` of the caller's tenant.
            RequestIdReused: the `request_id` was used with another body.
        """
        values = asdict(new) | {
            "upload_id": upload_id,
            "part_size_bytes": part_size_bytes,
            "object_key": object_key,
            "multipart_id": multipart_id,
            "expiry": expiry,
            "idle": idle,
            "tenant": tenant(),
            "max_open": max_open,
            "tenant_max_open": tenant_max_open,
        }
        try:
            async with self._pool.transaction() as db:
                row = await one(db, ADD_UPLOAD, **values)
                if row is None:
                    found = await one(db, COUNT_OPEN_UPLOADS, tenant=values["tenant"])
                    own = found is not None and found["count"] >= tenant_max_open
                    raise ResourceExhausted(
                        f"your tenant has {tenant_max_open} open uploads; complete or abort some"
                        if own
                        else f"all tenants have {max_open} open uploads; try again later",
                        _ROOM_AFTER,
                        "TOO_MANY_UPLOADS",
                    )
                await self._remember(db, new, upload_id=upload_id)
                return _upload(row)
        except UniqueViolation:
            # The same request came twice at once, and the other was faster.
            known = await self.find_upload(new)
            assert known is not None
            return await self.get_upload(known)

    async def find_upload(self, new: NewUpload) -> UUID | None:
        """The upload that this request led to before.

        Raises:
            RequestIdReused: the `request_id` was used with another body.
        """
        known = await self._find(new)
        return None if known is None else known["upload_id"]

    async def get_upload(self, upload_id: UUID) -> Upload:
        """Raises UploadNotFound."""
        async with self._pool.connection() as db:
            row = await one(db, GET_UPLOAD, upload_id=upload_id)
        if row is None:
            raise UploadNotFound(upload_id)
        return _upload(row)

    async def restart_upload(
        self, upload: Upload, object_key: str, multipart_id: str
    ) -> Sequence[Removal]:
        """Has the parts sent again, to another place; what was sent so far must go.

        Does nothing if the upload has been restarted or has ended meanwhile; then it is the new
        place that must go.
        """
        values = {
            "upload_id": upload.upload_id,
            "object_key": upload.object_key,
            "new_key": object_key,
            "new_multipart_id": multipart_id,
        }
        async with self._pool.transaction() as db:
            done = await one(db, RESTART_UPLOAD, **values)
            if done is None:
                return [await _add_removal(db, object_key, multipart_id)]
            return [await _add_removal(db, upload.object_key, upload.multipart_id)]

    async def abort_upload(self, upload_id: UUID) -> Sequence[Removal]:
        """Gives an upload up; its bytes must go. Once more changes nothing.

        Raises:
            UploadNotFound: there is none.
            UploadNotOpen: it was completed.
        """
        async with self._pool.transaction() as db:
            row = await one(db, ABORT_UPLOAD, upload_id=upload_id)
            if row is not None:
                return [await _add_removal(db, row["object_key"], row["multipart_id"])]
        upload = await self.get_upload(upload_id)
        if upload.state is UploadState.COMPLETED:
            raise UploadNotOpen(upload_id, upload.state)
        return []

    async def expire_uploads(self) -> int:
        """Gives up what was open for too long; returns how many. Forgets what ended long ago."""
        async with self._pool.connection() as db:
            return (await db.execute(EXPIRE_UPLOADS, {"kept": ENDED_UPLOADS_KEPT})).rowcount

    async def idle_uploads(self) -> list[Upload]:
        """Some that were made a while ago, and of which nobody has looked yet what has landed."""
        async with self._pool.connection() as db:
            return [_upload(row) for row in await every(db, IDLE_UPLOADS)]

    async def checked_upload(self, upload: Upload) -> None:
        """Something of it has landed: it has the rest of its time."""
        async with self._pool.connection() as db:
            await db.execute(CHECKED_UPLOAD, {"upload_id": upload.upload_id})

    async def check_upload_later(self, upload: Upload) -> None:
        """What of it has landed can't be said now."""
        async with self._pool.connection() as db:
            await db.execute(CHECK_UPLOAD_LATER, {"upload_id": upload.upload_id})

    async def expire_upload(self, upload: Upload) -> None:
        """Gives up an upload, unless it has ended or was restarted meanwhile."""
        values = {"upload_id": upload.upload_id, "object_key": upload.object_key}
        async with self._pool.connection() as db:
            await db.execute(EXPIRE_UPLOAD, values)

    async def complete_upload(
        self, upload: Upload, sha256: str, rejection: Rejection | None = None
    ) -> Audio:
        """Makes an audio of an upload whose bytes are verified. Once more answers the same audio.

        Raises:
            UploadNotOpen: it was aborted, has expired, or was restarted meanwhile.
        """
        values = {"upload_id": upload.upload_id, "object_key": upload.object_key, "sha256": sha256}
        async with self._pool.connection() as db:
            row = await one(db, COMPLETE_UPLOAD, **(values | _outset(rejection)))
        if row is not None:
            return _audio(row)
        current = await self.get_upload(upload.upload_id)
        if current.audio_id is None:
            raise UploadNotOpen(upload.upload_id, current.state)
        return await self.get_audio(current.audio_id)

    # Audio

    async def add_audio(
        self,
        new: NewUpload,
        *,
        object_key: str,
        size_bytes: int,
        sha256: str,
        rejection: Rejection | None,
        removal: Removal | None = None,
        gaps: Sequence[Gap] = (),
    ) -> Audio:
        """Makes an audio of bytes that are there, and keeps them from being removed.

        If the same request was faster on another way, answers that one's audio.

        Raises:
            StreamExpired: it took so long that they are being removed already.
            ObjectTaken: they belong to another audio.
            RequestIdReused: the `request_id` was used with another body.
        """
        values = asdict(new) | {
            "object_key": object_key,
            "size_bytes": size_bytes,
            "sha256": sha256,
            "gaps": Int8Multirange([Range(gap.start_sample, gap.end_sample) for gap in gaps]),
        }
        try:
            async with self._pool.transaction() as db:
                if rejection is None and removal is not None:
                    cancelled = await one(db, CANCEL_REMOVAL, **asdict(removal))
                    if cancelled is None:
                        raise StreamExpired
                row = await one(db, ADD_AUDIO, **(values | _outset(rejection)))
                assert row is not None
                await self._remember(db, new, audio_id=row["audio_id"])
                return _audio(row)
        except UniqueViolation:
            known = await self.find_audio(new)
            if known is None:
                raise ObjectTaken(object_key) from None
            return await self.get_audio(known)

    async def find_audio(self, new: NewUpload) -> UUID | None:
        """The audio that this stream led to before.

        Raises:
            RequestIdReused: the `request_id` was used with another body.
        """
        known = await self._find(new)
        return None if known is None else known["audio_id"]

    async def get_audio(self, audio_id: UUID) -> Audio:
        """Raises AudioNotFound."""
        async with self._pool.connection() as db:
            return await _get_audio(db, audio_id)

    async def list_audio(
        self,
        limit: int,
        state: AudioState | None = None,
        before: tuple[datetime, UUID] | None = None,
    ) -> list[Audio]:
        """Newest first, from the one after `before` on."""
        before_time, before_id = before or (None, None)
        values = {
            "limit": limit,
            "state": state,
            "before_time": before_time,
            "before_id": before_id,
        }
        async with self._pool.connection() as db:
            return [_audio(row) for row in await every(db, LIST_AUDIO, **values)]

    async def delete_audio(self, audio_id: UUID) -> tuple[Audio, Sequence[Removal]]:
        """Removes an audio with its slices and its upload; its bytes must go.

        Raises:
            AudioNotFound: there is none.
        """
        async with self._pool.transaction() as db:
            row = await one(db, DELETE_AUDIO, audio_id=audio_id)
            if row is None:
                raise AudioNotFound(audio_id)
            keys = (row["object_key"], slice_prefix(audio_id))
            return _audio(row), [await _add_removal(db, key, None) for key in keys]

    async def retry_audio(self, audio_id: UUID) -> int | None:
        """Lets the next try to prepare an audio begin now; returns how many there were.

        None if there is none to come: it is READY, or being prepared.

        Raises:
            AudioNotFound: there is none.
            AudioRejected: no try can help.
        """
        async with self._pool.connection() as db:
            row = await one(db, RETRY_AUDIO, audio_id=audio_id, **asdict(INTERRUPTED))
            if row is not None:
                return int(row["attempt"])
            audio = await _get_audio(db, audio_id)
        if audio.rejection is not None:
            raise AudioRejected(audio_id, audio.rejection)
        return None

    async def old_audio(self, age: timedelta) -> list[UUID]:
        """Some of the audio that has been here for so long."""
        async with self._pool.connection() as db:
            return [row["audio_id"] for row in await every(db, OLD_AUDIO, age=age)]

    async def list_slices(
        self, audio_id: UUID, start_index: int
    ) -> tuple[Audio, list[tuple[Slice, list[Gap]]]]:
        """An audio and its slices, each with the gaps in it, as of one moment.

        Raises:
            AudioNotFound: there is none.
        """
        values = {"audio_id": audio_id, "start_index": start_index}
        async with self._pool.transaction() as db:
            await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            audio = await _get_audio(db, audio_id)
            rows = await every(db, LIST_SLICES, **values)
        gaps = [[Gap(gap.lower, gap.upper) for gap in row.pop("gaps")] for row in rows]
        return audio, [(Slice(**row), each) for row, each in zip(rows, gaps, strict=True)]

    # Removals

    async def plan_removal(
        self, object_key: str, multipart_id: str | None, delay: timedelta
    ) -> Removal:
        """Has bytes removed after a while, unless an audio comes to own them before."""
        async with self._pool.connection() as db:
            return await _add_removal(db, object_key, multipart_id, delay)

    async def claim_removals(self, wanted: Sequence[Removal] | None = None) -> list[Removal]:
        """Takes removals for a minute or more: those wanted, or else up to 100 that are due."""
        ids = None if wanted is None else [removal.removal_id for removal in wanted]
        async with self._pool.connection() as db:
            return [Removal(**row) for row in await every(db, CLAIM_REMOVALS, removal_ids=ids)]

    async def settle_removal(self, removal: Removal) -> None:
        """The bytes are gone. The first time, they are removed once more after a while."""
        values = {"removal_id": removal.removal_id, "pause": SECOND_REMOVAL_AFTER}
        async with self._pool.connection() as db:
            await db.execute(SETTLE_REMOVAL, values)

    async def _find(self, new: NewUpload) -> Row | None:
        if new.request_id is None:
            return None
        async with self._pool.connection() as db:
            known = await one(db, FIND_REQUEST_ID, request_id=new.request_id)
        if known is not None and known["fingerprint"] != new.fingerprint():
            raise RequestIdReused(new.request_id)
        return known

    async def _remember(
        self,
        db: Connection,
        new: NewUpload,
        *,
        upload_id: UUID | None = None,
        audio_id: UUID | None = None,
    ) -> None:
        if new.request_id is not None:
            values = {
                "request_id": new.request_id,
                "fingerprint": new.fingerprint(),
                "upload_id": upload_id,
                "audio_id": audio_id,
            }
            await db.execute(ADD_REQUEST_ID, values)


@dataclass(frozen=True, slots=True)
class Unprepared:
    """Audio that waits, its last attempt, and the headers of the call that made it."""

    audio_id: UUID
    attempt: int
    trace: Mapping[str, str]


class PreparationStore:
    """The audio that is being prepared. Every write of a leaseholder is fenced."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(self, duration: timedelta, below: int | None = None) -> Lease | None:
        """Takes the audio whose turn it is for `duration`; earlier leases of it are over then.

        Args:
            duration: how long, unless it is renewed.
            below: only audio of which fewer samples are prepared.
        """
        values = {"lease": duration, "below": below} | asdict(INTERRUPTED)
        async with self._pool.connection() as db:
            row = await one(db, LEASE_AUDIO, **values)
        return None if row is None else Lease(**row)

    async def renew(self, lease: Lease, duration: timedelta) -> None:
        """Keeps a lease for `duration` from now. Raises StaleLease."""
        await self._change(RENEW_LEASE, lease, {"lease": duration})

    async def record_slice(self, lease: Lease, cut: Slice) -> None:
        """Adds the next slice. Raises StaleLease, also when it is not the next."""
        await self._change(RECORD_SLICE, lease, asdict(cut))

    async def finish(self, lease: Lease, source: Source) -> Audio:
        """All slices are there. Raises StaleLease."""
        return _audio(await self._change(FINISH_AUDIO, lease, asdict(source)))

    async def reject(self, lease: Lease, rejection: Rejection, grace: timedelta) -> Audio:
        """It can't be used: its slices must go after a while, and its bytes if they were uploaded.

        Raises StaleLease.
        """
        kept = None if is_import(lease.object_key) else grace
        values = asdict(lease) | asdict(rejection) | {"kept": kept}
        async with self._pool.transaction() as db:
            row = await one(db, REJECT_AUDIO, **values)
            if row is None:
                raise StaleLease(lease)
            await db.execute(DELETE_SLICES, {"audio_id": lease.audio_id})
            await _add_removal(db, slice_prefix(lease.audio_id), None, grace)
            if kept is not None:
                await _add_removal(db, lease.object_key, None, grace)
            return _audio(row)

    async def fail(self, lease: Lease, failure: Failure) -> None:
        """Counts a failure; the next try begins after a pause that grows. Raises StaleLease."""
        await self._change(FAIL_LEASE, lease, asdict(failure))

    async def put_off(self, lease: Lease, failure: Failure, pause: timedelta) -> None:
        """Ends a lease without blame, and tells why; another may begin after the pause.

        Raises StaleLease.
        """
        await self._change(PUT_OFF_LEASE, lease, asdict(failure) | {"pause": pause})

    async def hand_back(self, lease: Lease) -> None:
        """Ends a lease without blame; another may begin at once. Raises StaleLease."""
        await self._change(HAND_BACK_LEASE, lease, {})

    async def slice_keys(self, audio_id: UUID) -> set[str]:
        """Where the slices lie that are recorded, with context and without."""
        values = {"audio_id": audio_id, "start_index": 0}
        async with self._pool.connection() as db:
            rows = await every(db, LIST_SLICES, **values)
        return {row[key] for row in rows for key in ("object_key", "context_object_key")}

    async def unprepared(self) -> list[Unprepared]:
        """Audio that nobody works on though it could be."""
        async with self._pool.connection() as db:
            return [Unprepared(**row) for row in await every(db, LIST_UNPREPARED)]

    async def parked(self) -> int:
        """How many audios have failed to be prepared, and no slice has been cut of since."""
        async with self._pool.connection() as db:
            row = await one(db, COUNT_PARKED)
        assert row is not None
        return int(row["parked"])

    async def _change(self, statement: str, lease: Lease, values: Row) -> Row:
        async with self._pool.connection() as db:
            row = await one(db, statement, **(asdict(lease) | values))
        if row is None:
            raise StaleLease(lease)
        return row


async def _get_audio(db: Connection, audio_id: UUID) -> Audio:
    row = await one(db, GET_AUDIO, audio_id=audio_id)
    if row is None:
        raise AudioNotFound(audio_id)
    return _audio(row)


async def _add_removal(
    db: Connection, object_key: str, multipart_id: str | None, delay: timedelta = timedelta()
) -> Removal:
    values = {"object_key": object_key, "multipart_id": multipart_id, "delay": delay}
    row = await one(db, ADD_REMOVAL, **values)
    assert row is not None
    return Removal(**row)


def _outset(rejection: Rejection | None) -> Row:
    """The state that an audio begins with, and the trace that it belongs to."""
    return {
        "trace": Jsonb(trace_headers()),
        "state": AudioState.PREPARING if rejection is None else AudioState.REJECTED,
        "rejection_reason": rejection and rejection.reason,
        "rejection_message": rejection and rejection.message,
    }


def _upload(row: Row) -> Upload:
    return Upload(**row | {"state": UploadState(row["state"])})


def _audio(row: Row) -> Audio:
    return Audio(**row | {"state": AudioState(row["state"])})
