"""Links do to bytes what their faults say, and tell whether anybody felt it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from faults import harm
from faults.proxy import Calls, Link
from steno.local.ports import HOST, free_port
from waiting import eventually


def always() -> bool:
    return True


@asynccontextmanager
async def behind_link(
    answer: Callable[[bytes], bytes],
) -> AsyncIterator[tuple[Link, Callable[[bytes], asyncio.Task[bytes]], list[bytes]]]:
    """A server that answers each line, a link to it, a way to ask, and what the server got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                got.append(line)
                writer.write(answer(line))
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    target = server.sockets[0].getsockname()[1]
    writers: list[asyncio.StreamWriter] = []

    async with Link("a->b", free_port(), target) as link:

        async def ask(line: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(HOST, link.port)
            writers.append(writer)
            writer.write(line)
            return await reader.readline()

        yield link, lambda line: asyncio.create_task(ask(line)), got
        for writer in writers:
            writer.close()
    server.close()


async def test_a_healthy_link_passes_everything_on() -> None:
    async with behind_link(lambda line: line.upper()) as (link, ask, _):
        assert await ask(b"hello\n") == b"HELLO\n"
        assert not link.unanswered


async def test_a_severed_link_resets_whoever_waits_and_refuses_the_next() -> None:
    async with behind_link(lambda line: b"") as (link, ask, got):
        waiting = ask(b"hello\n")
        await eventually(lambda: got and link.unanswered)
        fault = harm.Severed()
        link.harm(fault)
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await ask(b"hello\n")
        assert fault.bites == 2


async def test_a_severed_link_on_which_nobody_waits_has_not_bitten() -> None:
    async with behind_link(lambda line: line) as (link, ask, _):
        await ask(b"hello\n")
        fault = harm.Severed()
        link.harm(fault)
        assert fault.bites == 0


async def test_on_a_half_open_link_bytes_vanish_until_it_is_healed() -> None:
    async with behind_link(lambda line: line) as (link, ask, got):
        fault = harm.HalfOpen(up=True, down=False)
        link.harm(fault)
        waiting = ask(b"hello\n")
        await eventually(lambda: fault.bites)
        assert got == []
        link.heal()
        with pytest.raises(ConnectionResetError):
            await waiting
        assert await ask(b"again\n") == b"again\n"


async def test_a_lost_answer_leaves_the_work_done() -> None:
    async with behind_link(lambda line: line) as (link, ask, got):
        fault = harm.AnswerLost(always)
        link.harm(fault)
        with pytest.raises(ConnectionResetError):
            await ask(b"work\n")
        assert got == [b"work\n"]
        assert fault.bites == 1


async def test_a_commit_passes_and_its_answer_does_not() -> None:
    async with behind_link(lambda line: b"C COMMIT\0\n") as (link, ask, got):
        fault = harm.CommitUnknown(always)
        link.harm(fault)
        with pytest.raises(ConnectionResetError):
            await ask(b"P _pg3_1\0COMMIT\0\n")
        assert got == [b"P _pg3_1\0COMMIT\0\n"]
        assert fault.bites == 1


async def test_only_commits_are_cut() -> None:
    async with behind_link(lambda line: b"C SELECT 1\0\n") as (link, ask, _):
        link.harm(harm.CommitUnknown(always))
        assert await ask(b"P \0SELECT 1\0\n") == b"C SELECT 1\0\n"


async def test_a_late_answer_comes_after_the_work() -> None:
    async with behind_link(lambda line: line) as (link, ask, got):
        link.harm(harm.Late(0.3, up=False))
        waiting = ask(b"work\n")
        await eventually(lambda: got)
        assert not waiting.done()
        assert await waiting == b"work\n"


@pytest.mark.parametrize(("after", "done"), [(False, []), (True, [b"PUT\n"])])
async def test_503_comes_before_the_work_or_after_it(after: bool, done: list[bytes]) -> None:
    async with behind_link(lambda line: b"HTTP/1.1 200 OK\n") as (link, ask, got):
        link.harm(harm.Refusing(always, after=after))
        assert await ask(b"PUT\n") == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert got == done


async def test_of_a_truncated_answer_half_comes() -> None:
    async with behind_link(lambda line: b"x" * 8000) as (link, ask, _):
        fault = harm.Truncated(always)
        link.harm(fault)
        body = await ask(b"GET\n")
        assert 0 < len(body) < 8000
        assert fault.bites == 1


async def test_a_grpc_link_knows_which_calls_are_open() -> None:
    released = asyncio.Event()

    async def wait(request: bytes, context: object) -> bytes:
        await released.wait()
        return request

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(wait)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Waiting", {"Wait": handler}),)
    )
    target = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    async with (
        Link("a->b", free_port(), target, Calls) as link,
        grpc.aio.insecure_channel(link.address) as channel,
    ):
        method: Any = channel.unary_unary("/test.Waiting/Wait")
        calls = [asyncio.ensure_future(method(b"x")) for _ in range(2)]
        await eventually(lambda: link.unanswered)
        released.set()
        await asyncio.gather(*calls)
        await eventually(lambda: not link.unanswered)
    await server.stop(None)
