"""Services start though what they need is away, and go on by themselves when it comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steno.local.child import Child, Command
from steno.local.health import grpc_health, must_be_ready
from steno.local.ports import HOST, free_port
from steno.local.servers import LocalServers

Start = Callable[[str], tuple[Child, str]]


@pytest.fixture
async def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a module as a process; returns it and its address. It is killed after the test."""
    children: list[Child] = []

    def run(module: str) -> tuple[Child, str]:
        address = f"{HOST}:{free_port()}"
        child = Child(
            module,
            Command(
                [sys.executable, "-m", module],
                environment | {"STENO_LISTEN": address},
                tmp_path / f"{module}.log",
            ),
        )
        children.append(child)
        child.start()
        return child, address

    yield run
    for child in children:
        await child.kill()


SERVICES = (
    "steno.upload",
    "steno.upload.prepare",
    "steno.job",
    "steno.concatenation",
    "steno.transcription",
)


async def test_all_services_are_ready_though_they_started_without_nats(
    start: Start, servers: LocalServers
) -> None:
    await servers.nats.kill()
    try:
        for child, address in [start(module) for module in SERVICES]:
            await child.ready(must_be_ready(grpc_health, address), 120)
    finally:
        await servers.nats.start()
