"""`steno up` as a process, with all its services."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from builtin_model import BUILTIN
from local_platforms import processes_of
from steno.local.data_dir import Running
from steno.local.health import Health, grpc_health
from steno.local.servers import LocalServers
from waiting import eventually

UP = "import sys; from steno.local.up import up; from pathlib import Path; " + (
    "sys.exit(up(Path(sys.argv[1]), models=[sys.argv[2]], workers=1, port_base=0))"
)


@asynccontextmanager
async def up(folder: Path, model: str = BUILTIN) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UP, str(folder), model),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await eventually(lambda: not processes_of(folder))
        await LocalServers(folder).stop()  # removes the sockets that a killed one leaves behind


async def ready(process: asyncio.subprocess.Process) -> str:
    """Waits until it says that it is ready; returns what it has printed."""
    assert process.stdout
    return (await process.stdout.readuntil(b"Ctrl-C stops it\n")).decode()


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_killed_it_takes_everything_with_it_and_starts_again_until_ctrl_c_stops_it(
    data_dir: Path,
) -> None:
    async with up(data_dir) as process:
        await ready(process)

        process.kill()

        await eventually(lambda: not processes_of(data_dir))
    async with up(data_dir) as process:
        printed = await ready(process)
        running = Running.read(data_dir)
        assert running
        for name, address in running.addresses.items():
            assert await grpc_health(address) is Health.READY
            assert f"{name} " in printed
            assert address in printed

        process.send_signal(signal.SIGINT)

        assert await process.wait() == 0
        await eventually(lambda: not processes_of(data_dir))


async def test_told_to_stop_while_it_starts_it_stops(data_dir: Path) -> None:
    async with up(data_dir) as process:
        assert process.stderr
        assert b"starting Postgres" in await process.stderr.readline()

        process.terminate()

        assert await process.wait() == 0
        await eventually(lambda: not processes_of(data_dir))


@pytest.mark.long
async def test_a_model_that_is_not_there_is_an_error_that_names_it(data_dir: Path) -> None:
    async with up(data_dir, model="/no/such/model") as process:
        _, errors = await process.communicate()

    assert process.returncode == 1
    assert "/no/such/model is neither a folder nor" in errors.decode()
    assert "Traceback" not in errors.decode()
