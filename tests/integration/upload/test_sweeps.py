"""What is removed while the object store refuses some of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from refusing import refused
from steno.platform.database import Pool
from steno.platform.objects import ObjectStore
from steno.platform.removals import Removals, Remover
from steno.upload.domain import NewUpload, Upload, UploadState
from steno.upload.store import Store
from steno.upload.sweep import Sweeper

MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(pool: Pool) -> Store:
    return Store(pool)


async def add_upload(store: Store, objects: ObjectStore, idle: timedelta) -> Upload:
    """An upload of which nothing has landed yet."""
    upload_id = uuid4()
    object_key = f"uploads/{upload_id}/1"
    return await store.add_upload(
        NewUpload("a", "", "", None, 1),
        upload_id=upload_id,
        part_size_bytes=8 * 2**20,
        object_key=object_key,
        multipart_id=await objects.create_multipart(object_key, ""),
        expiry=60 * MINUTE,
        idle=idle,
        max_open=10,
        tenant_max_open=10,
    )


async def test_an_upload_of_which_the_store_tells_nothing_holds_up_nothing_else(
    store: Store, objects: ObjectStore, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await add_upload(store, objects, idle=-MINUTE)
    idle = await add_upload(store, objects, idle=timedelta())
    await objects.put("uploads/a", b"x")
    await store.plan_removal("uploads/a", None, timedelta())
    monkeypatch.setattr(objects, "list_parts", refused(secret.object_key, objects.list_parts))

    await Sweeper(store, objects, Remover(Removals(pool, "upload"), objects)).sweep()

    assert (await store.get_upload(secret.upload_id)).state is UploadState.OPEN
    assert (await store.get_upload(idle.upload_id)).state is UploadState.EXPIRED
    assert await objects.list_prefix("uploads/") == []
    assert await store.idle_uploads() == []


async def test_an_upload_that_was_restarted_is_not_given_up_as_idle(
    store: Store, objects: ObjectStore
) -> None:
    upload = await add_upload(store, objects, idle=timedelta())
    place = f"uploads/{upload.upload_id}/2"

    await store.restart_upload(upload, place, await objects.create_multipart(place, ""))

    assert await store.idle_uploads() == []
