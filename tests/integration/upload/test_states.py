"""What the database itself refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID, uuid4

import psycopg
import pytest

from steno.platform.database import Pool, one
from steno.platform.migrate import migrate
from steno.platform.removals import Removals
from steno.platform.tenancy import tenant_in
from steno.transcript import Span
from steno.upload.domain import (
    INTERRUPTED,
    AudioState,
    Failure,
    Lease,
    NewUpload,
    Rejection,
    Slice,
    Source,
    StaleLease,
    StreamExpired,
    Upload,
    UploadNotFound,
    UploadState,
)
from steno.upload.statements import EXPIRE_UPLOADS, IDLE_UPLOADS
from steno.upload.store import PreparationStore, Store
from steno.v1 import upload_pb2 as pb
from waiting import eventually

from .conftest import Client

MINUTE = timedelta(minutes=1)
SOURCE = Source("wav", "pcm_s16le", 16_000, 1, truncated=False)

MOVES: dict[UploadState | AudioState, set[UploadState | AudioState]] = {
    UploadState.OPEN: {UploadState.COMPLETED, UploadState.ABORTED, UploadState.EXPIRED},
    AudioState.PREPARING: {AudioState.READY, AudioState.REJECTED},
}
"""The only moves there are; a state that is not a key is final."""

UPLOAD_TO = {
    UploadState.OPEN: "state = 'OPEN', audio_id = NULL",
    UploadState.COMPLETED: "state = 'COMPLETED', audio_id = %(audio_id)s",
    UploadState.ABORTED: "state = 'ABORTED', audio_id = NULL",
    UploadState.EXPIRED: "state = 'EXPIRED', audio_id = NULL",
}

AUDIO_TO = {
    AudioState.PREPARING: "rejection_reason = NULL, rejection_message = NULL, state = 'PREPARING'",
    AudioState.READY: "rejection_reason = NULL, rejection_message = NULL, state = 'READY'",
    AudioState.REJECTED: "rejection_reason = 'X', rejection_message = 'x', state = 'REJECTED'",
}


@pytest.fixture
def store(pool: Pool) -> Store:
    return Store(pool)


@pytest.fixture
def removals(pool: Pool) -> Removals:
    return Removals(pool, "upload")


@pytest.fixture
def preparation(pool: Pool) -> PreparationStore:
    return PreparationStore(pool)


async def add_upload(store: Store, request_id: UUID | None = None) -> Upload:
    upload_id = uuid4()
    return await store.add_upload(
        NewUpload("a", "", "", request_id, 1),
        upload_id=upload_id,
        part_size_bytes=8 * 2**20,
        object_key=f"uploads/{upload_id}/1",
        multipart_id="m",
        expiry=MINUTE,
        idle=MINUTE,
        max_open=10,
        tenant_max_open=10,
    )


async def add_audio(store: Store) -> UUID:
    return (await store.complete_upload(await add_upload(store), 64 * "0")).audio_id


async def try_move(pool: Pool, table: str, key: UUID, first: str, then: str) -> bool:
    """Puts a row into its first state, tries to move it on, and undoes both."""
    name = "upload_id" if table == "uploads" else "audio_id"
    async with pool.connection() as db, db.transaction(force_rollback=True):
        some = await (await db.execute("SELECT audio_id FROM upload.audio LIMIT 1")).fetchone()
        assert some is not None
        values = {"key": key, "audio_id": some["audio_id"]}
        statement = f"UPDATE upload.{table} SET {{}} WHERE {name} = %(key)s"
        await db.execute(statement.format(first), values)
        try:
            await db.execute(statement.format(then), values)
        except psycopg.errors.CheckViolation:
            return False
        return True


async def test_an_upload_moves_only_as_the_rules_say(store: Store, pool: Pool) -> None:
    audio_id = await add_audio(store)
    async with pool.connection() as db:
        await db.execute("DELETE FROM upload.uploads WHERE audio_id = %s", [audio_id])
    upload = await add_upload(store)

    for before, after in product(UploadState, UploadState):
        moved = await try_move(
            pool, "uploads", upload.upload_id, UPLOAD_TO[before], UPLOAD_TO[after]
        )
        assert moved == (after is before or after in MOVES.get(before, ())), (before, after)


async def test_an_audio_moves_only_as_the_rules_say(store: Store, pool: Pool) -> None:
    audio_id = await add_audio(store)

    for before, after in product(AudioState, AudioState):
        moved = await try_move(pool, "audio", audio_id, AUDIO_TO[before], AUDIO_TO[after])
        assert moved == (after is before or after in MOVES.get(before, ())), (before, after)


async def test_uploads_that_ended_are_forgotten_a_week_after_they_would_have_expired(
    store: Store, pool: Pool
) -> None:
    request_id = uuid4()
    aborted, expired = await add_upload(store, request_id), await add_upload(store)
    completed, lately = await add_upload(store), await add_upload(store)
    await store.abort_upload(aborted.upload_id)
    await store.complete_upload(completed, 64 * "0")
    await let_pass(pool, timedelta(days=6))
    assert await store.expire_uploads() == 2
    await let_pass(pool, timedelta(days=2), sparing=lately)

    assert await store.expire_uploads() == 0

    for gone in (aborted, expired):
        with pytest.raises(UploadNotFound):
            await store.get_upload(gone.upload_id)
    assert await store.find_upload(NewUpload("a", "", "", request_id, 1)) is None
    assert (await store.get_upload(completed.upload_id)).state is UploadState.COMPLETED
    assert (await store.get_upload(lately.upload_id)).state is UploadState.EXPIRED


async def test_what_must_go_is_found_without_reading_all_that_ever_was(
    store: Store, pool: Pool
) -> None:
    async with pool.connection() as db:
        await db.execute(MANY_UPLOADS)
        await db.execute("ANALYZE upload.uploads")
        found = await db.execute(f"EXPLAIN {EXPIRE_UPLOADS}", {"kept": MINUTE})
        plan = str(await found.fetchall())
        found = await db.execute(f"EXPLAIN {IDLE_UPLOADS}")
        plan += str(await found.fetchall())

    for index in ("uploads_expire_time_idx", "uploads_to_forget", "uploads_to_check"):
        assert index in plan
    assert "Seq Scan" not in plan


MANY_UPLOADS = """
INSERT INTO upload.uploads (upload_id, filename, size_bytes, content_type, sha256,
                            part_size_bytes, object_key, state, expire_time, check_time)
SELECT gen_random_uuid(), 'a', 0, '', '', 8388608, 'uploads/' || gen_random_uuid(), state,
       now() + number * interval '1 second', now() + number * interval '1 second'
FROM generate_series(1, 2000) AS number, unnest(ARRAY['OPEN', 'ABORTED']) AS state
"""


async def let_pass(pool: Pool, time: timedelta, sparing: Upload | None = None) -> None:
    """Uploads are older by so much."""
    spared = sparing and sparing.upload_id
    async with pool.connection() as db:
        await db.execute(
            "UPDATE upload.uploads SET expire_time = expire_time - %s"
            " WHERE upload_id IS DISTINCT FROM %s",
            [time, spared],
        )


async def leased(preparation: PreparationStore, duration: timedelta) -> Lease:
    """Takes the only audio there is."""
    lease = await preparation.lease(duration)
    assert lease is not None
    return lease


def cut(index: int, start: int, attempt: int = 1) -> Slice:
    return Slice(index, start, 100, 50, f"slices/x/{attempt}/{index}.wav")


async def test_a_lease_is_for_one_at_a_time_and_its_token_rises(
    store: Store, preparation: PreparationStore
) -> None:
    await add_audio(store)

    first = await leased(preparation, MINUTE)
    assert await preparation.lease(MINUTE) is None
    await preparation.hand_back(first)
    second = await leased(preparation, MINUTE)

    assert (first.attempt, second.attempt) == (1, 2)


# Longer ago than the first pause.
LONG_AGO = -MINUTE


async def test_a_lease_that_ran_out_counts_as_a_failure(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    await leased(preparation, LONG_AGO)

    second = await leased(preparation, MINUTE)

    assert second.attempt == 2
    audio = await store.get_audio(audio_id)
    assert (audio.failure, audio.failure_count) == (INTERRUPTED, 1)


async def have_failed(pool: Pool, times: int) -> None:
    """Preparations have failed so often in a row that the next pause is longer than any test."""
    async with pool.connection() as db:
        await db.execute("UPDATE upload.audio SET failure_count = %s", [times])


async def test_an_audio_whose_lease_ran_out_waits_before_its_next_attempt(
    pool: Pool, store: Store, preparation: PreparationStore
) -> None:
    await add_audio(store)
    await have_failed(pool, 10)
    await leased(preparation, timedelta())

    assert await preparation.lease(MINUTE) is None
    assert await preparation.unprepared() == []


BROKEN = Failure("DECODER_CRASHED", "The decoder died.")


async def test_a_failed_audio_waits_before_its_next_attempt_and_tells_why(
    pool: Pool, store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    await have_failed(pool, 10)
    await preparation.fail(await leased(preparation, MINUTE), BROKEN)

    assert await preparation.lease(MINUTE) is None
    assert await preparation.unprepared() == []
    audio = await store.get_audio(audio_id)
    assert (audio.state, audio.failure, audio.failure_count) == (AudioState.PREPARING, BROKEN, 11)
    assert await preparation.parked() == 1


async def test_however_often_a_preparation_fails_it_is_tried_again_within_an_hour(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    pauses = []

    for number in range(1, 31):
        await store.retry_audio(audio_id)
        lease = await leased(preparation, LONG_AGO if number % 2 else MINUTE)
        if number % 2 == 0:
            await preparation.fail(lease, BROKEN)
            audio = await store.get_audio(audio_id)
            assert audio.failure_count == number
            pauses.append(audio.next_attempt_time - audio.update_time)

    assert pauses[:2] == [timedelta(seconds=4), timedelta(seconds=16)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(hours=1)


async def test_a_recorded_slice_forgives_earlier_failures(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    await preparation.fail(await leased(preparation, MINUTE), BROKEN)
    await store.retry_audio(audio_id)
    lease = await leased(preparation, MINUTE)

    await preparation.record_slice(lease, cut(0, 0))

    audio = await store.get_audio(audio_id)
    assert (audio.failure, audio.failure_count) == (None, 0)
    assert await preparation.parked() == 0


async def test_what_is_put_off_tells_why_and_is_not_blamed(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    away = Failure("DEPENDENCY_UNAVAILABLE", "A server does not answer.")

    await preparation.put_off(await leased(preparation, MINUTE), away, timedelta())

    audio = await store.get_audio(audio_id)
    assert (audio.failure, audio.failure_count) == (away, 0)
    assert [each.audio_id for each in await preparation.unprepared()] == [audio_id]


async def test_no_try_is_hurried_while_an_audio_is_being_prepared_or_is_ready(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    lease = await leased(preparation, MINUTE)

    assert await store.retry_audio(audio_id) is None
    await preparation.finish(lease, SOURCE)
    assert await store.retry_audio(audio_id) is None


async def test_the_version_before_never_counts_the_five_failures_at_which_it_removes_bytes(
    store: Store, preparation: PreparationStore, pool: Pool
) -> None:
    async def failures() -> int:
        async with pool.connection() as db:
            row = await one(db, "SELECT failures FROM upload.audio")
        assert row is not None
        return int(row["failures"])

    await add_audio(store)
    assert await failures() < -1000
    async with pool.connection() as db:
        await db.execute("UPDATE upload.audio SET failures = 4")

    await preparation.hand_back(await leased(preparation, MINUTE))

    assert await failures() < -1000


async def test_failures_from_before_the_upgrade_are_forgiven(
    environment: dict[str, str], store: Store, pool: Pool
) -> None:
    await add_audio(store)
    async with pool.connection() as db:
        await db.execute("UPDATE upload.audio SET failures = 4")
        await db.execute("UPDATE upload.schema_version SET version_num = 'upload_0008'")

    migrate(environment["STENO_POSTGRES_URL"], "upload", "upload_0009")

    async with pool.connection() as db:
        row = await one(db, "SELECT failures FROM upload.audio")
    assert row is not None
    assert row["failures"] < -1000


async def add_sized(store: Store, size_bytes: int) -> UUID:
    """An audio of so many bytes."""
    audio = await store.add_audio(
        NewUpload("a", "", "", None),
        object_key=f"recordings/{uuid4()}",
        size_bytes=size_bytes,
        sha256=64 * "0",
        rejection=None,
    )
    return audio.audio_id


async def test_short_files_pass_long_ones_and_none_is_passed_for_ever(
    store: Store, preparation: PreparationStore, pool: Pool
) -> None:
    old = await add_sized(store, 10**9)
    long = await add_sized(store, 10**9)
    short = await add_sized(store, 10**6)
    async with pool.connection() as db:
        await db.execute(
            "UPDATE upload.audio SET create_time = create_time - interval '1000 s'"
            " WHERE audio_id = %s",
            [old],
        )

    taken = [(await leased(preparation, MINUTE)).audio_id for _ in range(3)]

    assert taken == [old, short, long]


async def test_the_tenant_of_whom_the_least_is_being_prepared_goes_first(
    store: Store, preparation: PreparationStore
) -> None:
    for tenant, files in (("many", 5), ("few", 2)):
        with tenant_in(tenant):
            for _ in range(files):
                await add_sized(store, 1)

    taken = [(await leased(preparation, MINUTE)).tenant for _ in range(7)]

    assert taken == ["many", "few", "many", "few", "many", "many", "many"]


async def test_what_is_known_to_be_long_can_be_left_for_later(
    store: Store, preparation: PreparationStore
) -> None:
    await add_audio(store)
    lease = await leased(preparation, MINUTE)
    await preparation.record_slice(lease, cut(0, 0))
    await preparation.hand_back(lease)

    assert await preparation.lease(MINUTE, below=100) is None
    assert await preparation.lease(MINUTE, below=101) is not None


async def test_nothing_is_written_under_a_lease_that_is_over(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    stale = await leased(preparation, LONG_AGO)
    await leased(preparation, MINUTE)

    for write in (
        preparation.renew(stale, MINUTE),
        preparation.record_slice(stale, cut(0, 0)),
        preparation.finish(stale, SOURCE),
        preparation.reject(stale, Rejection("X", "x"), MINUTE),
        preparation.fail(stale, BROKEN),
        preparation.put_off(stale, BROKEN, MINUTE),
        preparation.hand_back(stale),
    ):
        with pytest.raises(StaleLease):
            await write

    audio, slices = await store.list_slices(audio_id, 0)
    assert (audio.state, audio.slice_count, slices) == (AudioState.PREPARING, 0, [])


async def test_no_rejection_removes_what_a_live_session_recorded(
    store: Store, preparation: PreparationStore, removals: Removals
) -> None:
    uploaded, imported = await add_audio(store), await add_sized(store, 1)

    for _ in range(2):
        await preparation.reject(await leased(preparation, MINUTE), Rejection("X", "x"), -MINUTE)

    kept, gone = await store.get_audio(imported), await store.get_audio(uploaded)
    assert {removal.object_key for removal in await removals.claim()} == {
        gone.object_key,
        f"slices/{uploaded}/",
        f"slices/{imported}/",
    }
    assert kept.purge_time is None
    assert [audio.has_bytes(datetime.now(UTC)) for audio in (kept, gone)] == [True, False]
    _, planned = await store.delete_audio(imported)
    assert kept.object_key in {removal.object_key for removal in planned}


async def test_slices_join_without_gap_or_overlap(
    store: Store, preparation: PreparationStore
) -> None:
    await add_audio(store)
    lease = await leased(preparation, MINUTE)
    await preparation.record_slice(lease, cut(0, 0))

    for wrong in (cut(0, 0), cut(2, 100), cut(1, 99), cut(1, 101)):
        with pytest.raises(StaleLease):
            await preparation.record_slice(lease, wrong)


async def test_a_new_attempt_knows_where_the_last_one_stopped(
    store: Store, preparation: PreparationStore
) -> None:
    audio_id = await add_audio(store)
    first = await leased(preparation, MINUTE)
    await preparation.record_slice(first, cut(0, 0))
    await preparation.hand_back(first)

    second: Lease = await leased(preparation, MINUTE)
    await preparation.record_slice(second, cut(1, 100, attempt=2))

    assert (second.slice_count, second.sample_count) == (1, 100)
    _, slices = await store.list_slices(audio_id, 0)
    assert slices == [cut(0, 0), cut(1, 100, attempt=2)]
    assert (await store.list_slices(audio_id, 1))[1] == slices[1:]


async def test_each_slice_knows_what_of_it_never_came(
    store: Store, preparation: PreparationStore
) -> None:
    made = await store.add_audio(
        NewUpload("live.wav", "audio/wav", "", uuid4()),
        object_key=f"recordings/{uuid4()}.wav",
        size_bytes=1000,
        sha256=64 * "0",
        rejection=None,
        gaps=[Span(10, 20), Span(90, 130), Span(500, 600)],
    )
    lease = await leased(preparation, MINUTE)
    for index in range(2):
        await preparation.record_slice(lease, cut(index, 100 * index))

    _, slices = await store.list_slices(made.audio_id, 0)

    assert [piece.gaps for piece in slices] == [
        (Span(10, 20), Span(90, 100)),
        (Span(100, 130),),
    ]


async def test_a_slice_never_changes(
    store: Store, preparation: PreparationStore, pool: Pool
) -> None:
    await add_audio(store)
    lease = await leased(preparation, MINUTE)
    await preparation.record_slice(lease, cut(0, 0))

    with pytest.raises(psycopg.errors.CheckViolation):
        async with pool.connection() as db:
            await db.execute("UPDATE upload.slices SET sample_count = 1")


@pytest.mark.parametrize("removed", [False, True])
async def test_bytes_that_are_being_removed_become_no_audio(
    store: Store, removals: Removals, removed: bool
) -> None:
    planned = await store.plan_removal("uploads/x/1", "m", timedelta())
    await removals.claim()
    if removed:
        await removals.settle(planned)

    with pytest.raises(StreamExpired):
        await store.add_audio(
            NewUpload("a", "", "", None),
            object_key="uploads/x/1",
            size_bytes=1,
            sha256=64 * "0",
            rejection=None,
            removal=planned,
        )


async def test_the_removal_of_a_stream_is_due_long_after_the_stream_must_have_ended(
    service: Client, pool: Pool
) -> None:
    call = service.uploads.UploadAudio()
    await call.write(pb.UploadAudioRequest(header=pb.UploadAudioHeader(filename="a")))

    async def margin() -> timedelta | None:
        async with pool.connection() as db:
            planned = await one(db, "SELECT due_time - create_time AS delay FROM upload.removals")
        return planned["delay"] - timedelta(days=1) if planned else None

    assert await eventually(margin) >= timedelta(hours=1)
    call.cancel()
