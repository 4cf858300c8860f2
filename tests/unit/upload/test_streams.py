"""A stream is regrouped into parts, and no part is in memory twice."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

from steno.upload.streams import in_parts

PART = 2**20


async def chunks(count: int, size: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number]) * size


async def test_a_stream_is_regrouped_without_losing_a_byte() -> None:
    sent = b"".join([chunk async for chunk in chunks(7, 300)])

    parts = [part async for part in in_parts(chunks(7, 300), 1000)]

    assert b"".join(parts) == sent
    assert [len(part) for part in parts] == [1000, 1000, 100]


async def test_a_chunk_of_many_parts_is_cut_into_them() -> None:
    assert [len(part) async for part in in_parts(chunks(1, 3500), 1000)] == [1000] * 3 + [500]


async def test_while_a_part_is_sent_nothing_else_of_the_stream_is_held() -> None:
    tracemalloc.start()
    try:
        held = []
        async for part in in_parts(chunks(40, PART // 8), PART):
            held.append(tracemalloc.get_traced_memory()[0])
            del part
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()

    assert len(held) == 10
    assert max(held[0::2]) < 1.5 * PART
    assert max(held[1::2]) < 0.5 * PART
