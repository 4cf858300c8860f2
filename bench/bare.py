"""`python -m bench.bare FILE`: a bare grpc.aio server that writes the messages of a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc


async def main(path: Path) -> None:
    """Serves until it is ended; prints its port."""
    data, messages = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:4], "big")
        messages.append(data[4 : 4 + size])
        data = data[4 + size :]

    async def watch(request: bytes, context: object) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "steno.v1.JobService", {"WatchJob": grpc.unary_stream_rpc_method_handler(watch)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
