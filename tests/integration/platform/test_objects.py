"""The object store, on a real S3 server."""

import urllib.request
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from steno.platform.errors import Unavailable
from steno.platform.objects import ObjectNotFound, ObjectStore, open_store
from steno.platform.settings import S3Settings

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def store(environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as store:
        yield store


def put(url: str, data: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data, method="PUT")):
        pass


async def test_what_was_put_can_be_read_whole_and_in_ranges(store: ObjectStore) -> None:
    await store.put("a/b", b"0123456789")

    assert await store.get("a/b") == b"0123456789"
    assert await store.get_range("a/b", 3, 4) == b"3456"
    assert await store.get_range("a/b", 8, 100) == b"89"
    assert await store.stat("a/b") == 10


async def test_a_long_range_is_passed_on_piece_by_piece(store: ObjectStore) -> None:
    data = bytes(range(256)) * 12_000
    await store.put("long", data)
    pieces: list[bytes] = []

    await store.pass_range("long", 1, len(data), pieces.append)

    assert b"".join(pieces) == data[1:]
    assert max(map(len, pieces)) < len(data) / 2


async def test_a_missing_object_says_so(store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFound):
        await store.get("nothing")


async def test_parts_put_to_presigned_urls_become_one_object(store: ObjectStore) -> None:
    upload = await store.create_multipart("joined", "audio/wav")
    first, last = bytes(5 * 2**20), b"end"
    put(store.presigned_part("joined", upload, 2, MINUTE), last)
    put(store.presigned_part("joined", upload, 1, MINUTE), first)

    parts = await store.list_parts("joined", upload)
    await store.complete_multipart("joined", upload, parts)

    assert [(part.part_number, part.size_bytes) for part in parts] == [(1, len(first)), (2, 3)]
    assert await store.get("joined") == first + last


async def test_an_aborted_upload_leaves_nothing(store: ObjectStore) -> None:
    upload = await store.create_multipart("given-up", "audio/wav")
    await store.upload_part("given-up", upload, 1, b"x")

    await store.abort_multipart("given-up", upload)
    await store.abort_multipart("given-up", upload)

    with pytest.raises(ObjectNotFound):
        await store.list_parts("given-up", upload)


async def test_removing_a_prefix_leaves_its_neighbours(store: ObjectStore) -> None:
    for key in ("x/1", "x/2", "y/1"):
        await store.put(key, b"")

    await store.remove_prefix("x/")

    assert await store.list_prefix("") == ["y/1"]


async def test_a_store_that_is_away_is_unavailable(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STENO_S3_ENDPOINT", "http://127.0.0.1:1")

    async with open_store(S3Settings()) as store:
        with pytest.raises(Unavailable):
            await store.get("x")
