"""The tables of the upload service, in SQL. One method is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Range

from steno.platform.database import Connection, Pool, every, one
from steno.platform.errors import ResourceExhausted
from steno.platform.paging import Place
from steno.platform.removals import Removal, Removals
from steno.platform.telemetry import trace_headers
from steno.platform.tenancy import tenant
from steno.transcript import Span
from steno.upload.domain import (
    INTERRUPTED,
    Audio,
    AudioNotFound,
    AudioRejected,
    AudioState,
    Failure,
    Lease,
    NewUpload,
    ObjectTaken,
    Rejection,
    RequestIdReused,
    Slice,
    Source,
    StaleLease,
    StreamExpired,
    Upload,
    UploadNotFound,
    UploadNotOpen,
    UploadState,
)
from steno.upload.keys import is_import, slice_prefix
from steno.upload.statements import (
    ABORT_UPLOAD,
    ADD_AUDIO,
    ADD_REQUEST_ID,
    ADD_UPLOAD,
    CHECK_UPLOAD_LATER,
    CHECKED_UPLOAD,
    COMPLETE_UPLOAD,
    COUNT_OPEN_UPLOADS,
    COUNT_PARKED,
    DELETE_AUDIO,
    DELETE_SLICES,
    EXPIRE_UPLOAD,
    EXPIRE_UPLOADS,
    FAIL_LEASE,
    FIND_REQUEST_ID,
    FINISH_AUDIO,
    GET_AUDIO,
    GET_UPLOAD,
    HAND_BACK_LEASE,
    IDLE_UPLOADS,
    LEASE_AUDIO,
    LIST_AUDIO,
    LIST_SLICES,
    LIST_UNPREPARED,
    OLD_AUDIO,
    PUT_OFF_LEASE,
    RECORD_SLICE,
    REJECT_AUDIO,
    RENEW_LEASE,
    RESTART_UPLOAD,
    RETRY_AUDIO,
    TENANT_OF_AUDIO,
    TENANT_OF_UPLOAD,
)

Row = dict[str, Any]

_ROOM_AFTER = timedelta(seconds=30)

ENDED_UPLOADS_KEPT = timedelta(days=7)
"""How long after its `expire_time` an upload that became no audio can still be asked for."""


class Store:
    """Uploads and audio; those that are made, found or listed are the calling tenant's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.removals = Removals(pool, "upload")

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

    async def tenant_of_upload(self, upload_id: UUID) -> str | None:
        """Whose an upload is; None if there is none."""
        async with self._pool.connection() as db:
            row = await one(db, TENANT_OF_UPLOAD, upload_id=upload_id)
        return None if row is None else row["tenant"]

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
                return [await self.removals.add(db, object_key, multipart_id)]
            return [await self.removals.add(db, upload.object_key, upload.multipart_id)]

    async def abort_upload(self, upload_id: UUID) -> Sequence[Removal]:
        """Gives an upload up; its bytes must go. Once more changes nothing.

        Raises:
            UploadNotFound: there is none.
            UploadNotOpen: it was completed.
        """
        async with self._pool.transaction() as db:
            row = await one(db, ABORT_UPLOAD, upload_id=upload_id)
            if row is not None:
                return [await self.removals.add(db, row["object_key"], row["multipart_id"])]
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

    async def add_audio(
        self,
        new: NewUpload,
        *,
        object_key: str,
        size_bytes: int,
        sha256: str,
        rejection: Rejection | None,
        removal: Removal | None = None,
        gaps: Sequence[Span] = (),
    ) -> Audio:
        """Makes an audio of bytes that are there, and keeps them from being removed.

        If the same request was faster on another way, answers that one's audio.

        Raises:
            StreamExpired: it took so long that they are being removed already.
            ObjectTaken: they belong to another audio.
            RequestIdReused: the `request_id` was used with another body.
        """
        values = asdict(new) | {
            "tenant": tenant(),
            "object_key": object_key,
            "size_bytes": size_bytes,
            "sha256": sha256,
            "gaps": Int8Multirange([Range(gap.start, gap.end) for gap in gaps]),
        }
        try:
            async with self._pool.transaction() as db:
                planned = removal if rejection is None else None
                if planned is not None and not await self.removals.cancel(db, planned):
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

    async def tenant_of_audio(self, audio_id: UUID) -> str | None:
        """Whose an audio is; None if there is none."""
        async with self._pool.connection() as db:
            row = await one(db, TENANT_OF_AUDIO, audio_id=audio_id)
        return None if row is None else row["tenant"]

    async def list_audio(
        self,
        limit: int,
        state: AudioState | None = None,
        before: Place | None = None,
    ) -> list[Audio]:
        """Newest first, from the one after `before` on."""
        before_time, before_id = before or (None, None)
        values = {
            "tenant": tenant(),
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
            return _audio(row), [await self.removals.add(db, key) for key in keys]

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
        """Some of the audio of all tenants that was made longer ago."""
        async with self._pool.connection() as db:
            return [row["audio_id"] for row in await every(db, OLD_AUDIO, age=age)]

    async def list_slices(self, audio_id: UUID, start_index: int) -> tuple[Audio, list[Slice]]:
        """An audio and its slices from an index on, as of one moment.

        Raises:
            AudioNotFound: there is none.
        """
        values = {"audio_id": audio_id, "start_index": start_index}
        async with self._pool.transaction() as db:
            await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            audio = await _get_audio(db, audio_id)
            rows = await every(db, LIST_SLICES, **values)
        return audio, [_slice(row) for row in rows]

    async def plan_removal(
        self, object_key: str, multipart_id: str | None, delay: timedelta
    ) -> Removal:
        """Has bytes removed after a while, unless an audio comes to own them before."""
        async with self._pool.connection() as db:
            return await self.removals.add(db, object_key, multipart_id, delay)

    async def _find(self, new: NewUpload) -> Row | None:
        if new.request_id is None:
            return None
        async with self._pool.connection() as db:
            known = await one(db, FIND_REQUEST_ID, tenant=tenant(), request_id=new.request_id)
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
        self.removals = Removals(pool, "upload")

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
            await self.removals.add(db, slice_prefix(lease.audio_id), delay=grace)
            if kept is not None:
                await self.removals.add(db, lease.object_key, delay=grace)
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


def _slice(row: Row) -> Slice:
    gaps = tuple(Span(gap.lower, gap.upper) for gap in row["gaps"])
    return Slice(**row | {"gaps": gaps})


def _audio(row: Row) -> Audio:
    return Audio(**row | {"state": AudioState(row["state"])})
