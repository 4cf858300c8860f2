"""Whose audio it is."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from steno.platform.database import Pool, every, one
from steno.platform.tenancy import tenant_in
from steno.upload.domain import NewUpload, Slice
from steno.upload.statements import OLD_AUDIO
from steno.upload.store import PreparationStore, Store
from steno.v1 import upload_pb2 as pb

from .conftest import Client

HOUR = timedelta(hours=1)


@pytest.fixture
def store(pool: Pool) -> Store:
    return Store(pool)


async def add_audio(store: Store, tenant: str, request_id: UUID | None = None) -> UUID:
    with tenant_in(tenant):
        audio = await store.add_audio(
            NewUpload("a", "", "", request_id),
            object_key=f"recordings/{uuid4()}",
            size_bytes=1,
            sha256=64 * "0",
            rejection=None,
        )
    return audio.audio_id


async def listed(store: Store, tenant: str) -> list[UUID]:
    with tenant_in(tenant):
        return [audio.audio_id for audio in await store.list_audio(10)]


async def test_each_tenant_lists_its_own_audio(store: Store) -> None:
    first, second = [await add_audio(store, tenant) for tenant in ("first", "second")]

    assert await listed(store, "first") == [first]
    assert await listed(store, "second") == [second]
    assert await listed(store, "default") == []


async def test_an_audio_and_its_slices_belong_to_whom_the_upload_belongs(
    store: Store, pool: Pool
) -> None:
    with tenant_in("first"):
        upload = await store.add_upload(
            NewUpload("a", "", "", None, 1),
            upload_id=(upload_id := uuid4()),
            part_size_bytes=8 * 2**20,
            object_key=f"uploads/{upload_id}/1",
            multipart_id="m",
            expiry=HOUR,
            idle=HOUR,
            max_open=10,
            tenant_max_open=10,
        )
    with tenant_in("second"):
        audio = await store.complete_upload(upload, 64 * "0")

    preparation = PreparationStore(pool)
    lease = await preparation.lease(HOUR)
    assert lease is not None
    await preparation.record_slice(lease, Slice(0, 0, 100, 50, "slices/x/1/0.wav"))

    assert await listed(store, "first") == [audio.audio_id]
    assert lease.tenant == "first"
    async with pool.connection() as db:
        row = await one(db, "SELECT tenant FROM upload.slices")
    assert row == {"tenant": "first"}


@pytest.mark.parametrize("remembered_as", ["default", "first"])
async def test_a_request_is_known_whether_it_was_remembered_with_its_tenant_or_without(
    store: Store, pool: Pool, remembered_as: str
) -> None:
    request_id = uuid4()
    audio_id = await add_audio(store, "first", request_id)
    async with pool.connection() as db:
        await db.execute("UPDATE upload.request_ids SET tenant = %s", [remembered_as])

    with tenant_in("first"):
        known = await store.find_audio(NewUpload("a", "", "", request_id))

    assert known == audio_id


async def test_a_request_that_was_remembered_as_another_tenants_is_not_known(
    store: Store, pool: Pool
) -> None:
    request_id = uuid4()
    await add_audio(store, "first", request_id)
    async with pool.connection() as db:
        await db.execute("UPDATE upload.request_ids SET tenant = 'first'")

    with tenant_in("second"):
        known = await store.find_audio(NewUpload("a", "", "", request_id))

    assert known is None


async def test_a_page_token_of_another_tenant_is_refused(service: Client, store: Store) -> None:
    for _ in range(2):
        await add_audio(store, "first")
    first, second = ((("x-steno-tenant", name),) for name in ("first", "second"))
    request = pb.ListAudioRequest(page_size=1)
    page = await service.uploads.ListAudio(request, metadata=first)
    request.page_token = page.next_page_token

    assert (await service.uploads.ListAudio(request, metadata=first)).audio
    failure = await service.failure_of(service.uploads.ListAudio(request, metadata=second))

    assert [violation.field for violation in failure.violations] == ["page_token"]


MANY_AUDIO = """
INSERT INTO upload.audio
    (tenant, filename, content_type, size_bytes, sha256, object_key, state, create_time)
SELECT tenant, 'a', '', 1, repeat('0', 64), 'uploads/' || gen_random_uuid(), 'PREPARING',
    now() - number * interval '1 second'
FROM generate_series(1, 2000) AS number, unnest(ARRAY['a', 'b', 'c']) AS tenant
"""


async def test_old_audio_of_all_tenants_is_found_without_reading_all_that_there_is(
    pool: Pool,
) -> None:
    async with pool.connection() as db:
        await db.execute(MANY_AUDIO)
        await db.execute("ANALYZE upload.audio")
        old = await every(db, OLD_AUDIO, age=timedelta(seconds=1990))
        plan = str(await every(db, f"EXPLAIN {OLD_AUDIO}", age=timedelta(seconds=1990)))

    assert 3 * 10 <= len(old) <= 3 * 11
    assert "Seq Scan" not in plan
