"""The object store, on a real S3 server."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from steno.local.ports import HOST
from steno.platform import objects
from steno.platform.errors import Unavailable
from steno.platform.objects import ObjectNotFound, ObjectStore, open_store
from steno.platform.settings import S3Settings
from waiting import eventually

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
    urls = store.presigned_parts("joined", upload, {1: len(first), 2: len(last)}, MINUTE)
    put(urls[2], last)
    put(urls[1], first)

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


class Halted:
    """A store that takes connections and never answers."""

    def __init__(self) -> None:
        self.connections: list[asyncio.StreamWriter] = []

    def meet(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)


@pytest.fixture
async def halted(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Halted]:
    """The store of the settings is halted, and one second is a long time."""
    monkeypatch.setattr(objects, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(objects, "_WAIT_SECONDS", 1.0)
    halted = Halted()
    server = await asyncio.start_server(halted.meet, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("STENO_S3_ENDPOINT", f"http://{HOST}:{port}")
    yield halted
    server.close()
    for writer in halted.connections:
        writer.close()


async def test_a_store_that_hangs_is_unavailable_after_some_tries(halted: Halted) -> None:
    async with open_store(S3Settings()) as store:
        with pytest.raises(Unavailable):
            await store.get("x")

    await eventually(lambda: len(halted.connections) == 4)


async def test_nothing_is_tried_again_for_a_caller_who_has_gone(
    halted: Halted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_SILENCE_SECONDS", 100.0)
    async with open_store(S3Settings()) as store:
        call = asyncio.create_task(store.get("x"))
        await eventually(lambda: halted.connections)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        halted.connections[0].close()
        await eventually(lambda: store._free._value == objects._THREADS)

    assert len(halted.connections) == 1


async def test_who_finds_all_calls_hanging_is_told_in_time(
    halted: Halted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_SILENCE_SECONDS", 100.0)
    async with open_store(S3Settings()) as store:
        calls = [asyncio.create_task(store.get("x")) for _ in range(objects._THREADS)]
        await eventually(lambda: len(halted.connections) == objects._THREADS)
        with pytest.raises(Unavailable, match="slow"):
            await store.get("y")
        for call in calls:
            call.cancel()
        for writer in halted.connections:
            writer.close()
        await eventually(lambda: store._free._value == objects._THREADS)


async def test_a_multipart_upload_whose_caller_goes_while_it_begins_is_aborted(
    store: ObjectStore,
) -> None:
    async def begun() -> list[str | None]:
        found = await asyncio.to_thread(store._client._list_multipart_uploads, store._bucket)
        return [upload.upload_id for upload in found.uploads]

    for moment in range(20):
        call = asyncio.create_task(store.create_multipart(f"cut/{moment}", "audio/wav"))
        await asyncio.sleep(moment / 2000)
        if not call.cancel():  # it was quick
            await store.abort_multipart(f"cut/{moment}", call.result())

    async def none() -> bool:
        return not store._leftovers and not await begun()

    await eventually(none)


async def test_reads_that_are_cut_anywhere_cost_no_connection(store: ObjectStore) -> None:
    data = bytes(8 * 2**20)
    await store.put("long", data)

    for moment in range(20):
        taken: list[bytes] = []
        call = asyncio.create_task(store.pass_range("long", 0, len(data), taken.append))
        await asyncio.sleep(moment / 2000)
        call.cancel()
    await eventually(lambda: store._free._value == objects._THREADS)

    assert await store.get("long") == data


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
AnsweredBy = Callable[[Answering], Awaitable[None]]


@pytest.fixture
async def answered_by(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AnsweredBy]:
    """Makes the store of the settings one that answers as it is told."""
    servers, writers = [], []

    async def serve(answer: Answering) -> None:
        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with suppress(OSError):
                await answer(reader, writer)

        servers.append(await asyncio.start_server(meet, HOST, 0, limit=2**16))
        port = servers[-1].sockets[0].getsockname()[1]
        monkeypatch.setenv("STENO_S3_ENDPOINT", f"http://{HOST}:{port}")

    yield serve
    for server in servers:
        server.close()
    for writer in writers:
        writer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n"


@pytest.mark.parametrize("whole", [False, True])
async def test_a_store_that_gives_byte_by_byte_keeps_no_thread(
    answered_by: AnsweredBy, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_CALL_SECONDS", 0.5)
    over = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK % (2**20, b""))
        while not over.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    await answered_by(trickle)
    async with open_store(S3Settings()) as store:
        with pytest.raises(Unavailable):
            await (store.get("x") if whole else store.pass_range("x", 0, 2**20, len))
        await eventually(lambda: store._free._value == objects._THREADS, within=10)
        over.set()


async def test_a_redirect_is_followed(answered_by: AnsweredBy) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/again" in head:
            writer.write(OK % (3, b"") + b"abc")
        else:
            moved = b"HTTP/1.1 307 Moved\r\nLocation: /again\r\nContent-Length: 0\r\n"
            writer.write(moved + b"Connection: close\r\n\r\n")
            await writer.drain()
            writer.close()

    await answered_by(redirect)
    async with open_store(S3Settings()) as store:
        assert await store.get("x") == b"abc"


async def test_a_store_that_takes_bytes_slowly_but_steadily_gets_all(
    answered_by: AnsweredBy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(objects, "_SILENCE_SECONDS", 10.0)
    data, taken, begun = bytes(16 * 2**20), bytearray(), 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        await reader.readuntil(b"\r\n\r\n")
        begun += 1
        while len(taken) < len(data):
            taken.extend(await reader.read(2**16))
            if len(taken) % 2**20 < 2**16:
                await asyncio.sleep(0.3)  # longer than connecting may take
        writer.write(OK % (0, b'ETag: "x"\r\n'))

    await answered_by(slow)
    async with open_store(S3Settings()) as store:
        await store.upload_part("x", "upload", 1, data)

    assert (begun, len(taken)) == (1, len(data))
