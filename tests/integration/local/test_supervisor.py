"""The platform as a whole, with stand-ins for its services."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest

from local_platforms import processes_of, stand_in
from steno.local.child import StartError
from steno.local.data_dir import FolderInUse, Running
from steno.local.health import Health, metrics_health
from steno.local.ports import PortTaken
from steno.local.supervisor import Platform
from waiting import eventually

DirMaker = Callable[[], AbstractContextManager[Path]]


@pytest.fixture(scope="module")
async def shared(make_data_dir: DirMaker) -> AsyncIterator[tuple[Platform, list[str]]]:
    """A platform that tests may harm, for it mends itself; and what it has said."""
    said: list[str] = []
    with make_data_dir() as folder, pytest.MonkeyPatch.context() as terminal:
        terminal.setenv("STENO_TLS_CA", "/of/another/platform.pem")
        async with Platform(folder, [stand_in()], port_base=0, say=said.append) as platform:
            yield platform, said


async def test_others_can_read_where_it_is(shared: tuple[Platform, list[str]]) -> None:
    platform, _ = shared

    running = Running.read(platform.folder)

    assert running
    assert running.pid == os.getpid()
    assert running.servers["nats"] == platform.address_of("nats")
    assert await metrics_health(running.metrics["stand-in"]) is Health.READY


async def test_its_services_speak_no_tls_whatever_the_terminal_speaks_elsewhere(
    shared: tuple[Platform, list[str]],
) -> None:
    platform, _ = shared
    service = next(pid for pid, line in processes_of(platform.folder).items() if "stand_in" in line)

    environment = Path(f"/proc/{service}/environ").read_text().split("\0")

    assert "STENO_TLS_CA=" in environment


async def test_a_second_one_on_the_same_folder_is_refused(
    shared: tuple[Platform, list[str]],
) -> None:
    platform, _ = shared

    with pytest.raises(FolderInUse, match="--data-dir"):
        async with Platform(platform.folder, [], port_base=0):
            pass

    assert Running.read(platform.folder), "the first one is still where it was"


async def test_a_port_that_was_asked_for_and_is_taken_is_refused(
    shared: tuple[Platform, list[str]], tmp_path: Path
) -> None:
    platform, _ = shared
    # Postgres has the 16th of the ports from the base on.
    base = platform.ports["postgres"] - 15

    with pytest.raises(PortTaken, match=f"port {base + 15}, for postgres, is in use"):
        async with Platform(tmp_path, [], port_base=base):
            pass


@pytest.mark.parametrize("name", ["stand-in", "nats", "postgres", "s3"])
async def test_what_crashes_is_started_again_and_said(
    shared: tuple[Platform, list[str]], name: str
) -> None:
    platform, said = shared
    servers = {server.name: server.child for server in platform.servers.all}
    pid = (servers | platform.children)[name].pid
    assert pid

    os.kill(pid, signal.SIGKILL)

    await eventually(lambda: f"{name} is ready again" in said, within=90)
    assert any(line.startswith(f"{name} ended (signal 9), starts again in 0.2 s") for line in said)


async def test_it_leaves_nothing_behind_but_its_data_and_goes_on_with_that(data_dir: Path) -> None:
    async with Platform(data_dir, [stand_in()], port_base=0) as first:
        # three servers, the stand-in and its own child
        assert len(processes_of(data_dir)) >= 5
        with psycopg.connect(first.servers.postgres.url) as db:
            db.execute("CREATE TABLE kept (number int)")

    await eventually(lambda: not processes_of(data_dir))
    assert Running.read(data_dir) is None
    assert (first.logs / "stand-in.log").read_text() == "stopped in good order\n"
    assert list(Path("/tmp").glob(f"*-{first.ports['s3-grpc']}.sock")) == []

    async with Platform(data_dir, [], port_base=0) as second:
        with psycopg.connect(second.servers.postgres.url) as db:
            db.execute("SELECT number FROM kept")
        assert second.addresses == {}
        assert second.address_of("s3") == first.address_of("s3")


async def test_a_service_that_can_not_start_stops_all_and_says_why(data_dir: Path) -> None:
    broken = stand_in("broken", STAND_IN_FAILS="1")

    with pytest.raises(StartError, match=r"broken ended \(exit status 1\): no such model\n"):
        async with Platform(data_dir, [stand_in(), broken], port_base=0):
            pass

    await eventually(lambda: not processes_of(data_dir))
    assert Running.read(data_dir) is None
