"""Bytes that must go, in each schema that has such."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from refusing import refused
from steno.platform.database import Pool, one, open_pool
from steno.platform.objects import ObjectStore, open_store
from steno.platform.removals import Removal, Removals, Remover
from steno.platform.settings import PostgresSettings, S3Settings

MINUTE = timedelta(minutes=1)

SCHEMAS: dict[str, dict[str, Any]] = {
    "upload": {},
    "concatenation": {"key_column": "object_prefix", "only_prefixes": True},
}


@pytest.fixture
async def pool(environment: dict[str, str]) -> AsyncIterator[Pool]:
    async with open_pool(PostgresSettings()) as pool:
        yield pool


@pytest.fixture
async def objects(environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as objects:
        await objects.ensure_bucket()
        yield objects


@pytest.fixture(params=SCHEMAS)
def schema(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def removals(pool: Pool, schema: str) -> Removals:
    return Removals(pool, schema, **SCHEMAS[schema])


async def plan(pool: Pool, removals: Removals, key: str, delay: timedelta = timedelta()) -> Removal:
    async with pool.transaction() as db:
        return await removals.add(db, key, delay=delay)


async def make_due(pool: Pool, schema: str) -> None:
    async with pool.connection() as db:
        await db.execute(f"UPDATE {schema}.removals SET due_time = now()")


async def test_bytes_are_removed_twice_and_then_forgotten(
    pool: Pool, schema: str, removals: Removals
) -> None:
    planned = await plan(pool, removals, "a/", MINUTE)
    assert await removals.claim() == []

    assert await removals.claim([planned]) == [planned]
    await removals.settle(planned)
    await make_due(pool, schema)
    assert await removals.claim() == [planned]
    await removals.settle(planned)

    await make_due(pool, schema)
    assert await removals.claim() == []


async def test_what_is_claimed_is_not_claimed_by_another_at_once(
    pool: Pool, removals: Removals
) -> None:
    await plan(pool, removals, "a/")

    assert len(await removals.claim()) == 1
    assert await removals.claim() == []


async def test_a_removal_that_fails_again_and_again_comes_ever_less_often(pool: Pool) -> None:
    removals = Removals(pool, "upload")
    await plan(pool, removals, "uploads/x/1")
    pauses = []

    for _ in range(8):
        assert await removals.claim()
        async with pool.connection() as db:
            row = await one(db, "SELECT due_time - now() AS pause FROM upload.removals")
        assert row is not None
        pauses.append(row["pause"])
        await make_due(pool, "upload")

    assert pauses[:6] == sorted(pauses[:6])
    assert pauses[0] < 2 * MINUTE
    assert 30 * MINUTE < max(pauses) <= 60 * MINUTE


async def test_a_removal_is_taken_back_unless_it_has_begun(pool: Pool) -> None:
    removals = Removals(pool, "upload")
    early, late = [await plan(pool, removals, f"uploads/{key}") for key in "ab"]
    await removals.claim([late])

    async with pool.transaction() as db:
        assert await removals.cancel(db, early)
        assert not await removals.cancel(db, late)


async def test_what_the_store_refuses_to_remove_holds_up_nothing_else(
    pool: Pool, removals: Removals, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "abc":
        await objects.put(f"{key}/1", b"x")
        await plan(pool, removals, f"{key}/")
    monkeypatch.setattr(objects, "remove_prefix", refused("a/", objects.remove_prefix))

    await Remover(removals, objects).sweep()

    assert await objects.list_prefix("") == ["a/1"]


async def test_what_must_go_at_once_goes_though_it_is_not_due(
    pool: Pool, removals: Removals, objects: ObjectStore
) -> None:
    await objects.put("a/1", b"x")
    planned = await plan(pool, removals, "a/", MINUTE)

    await Remover(removals, objects).remove([planned])

    assert await objects.list_prefix("") == []
