"""The whole platform, as `steno up` runs it, in a folder of its own and on free ports."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from builtin_model import BUILTIN
from folders import server_folder
from platform_client import Client
from steno.local.child import Child
from steno.local.health import Health, grpc_health
from steno.local.supervisor import Platform, Service, services
from steno.platform.objects import open_store
from steno.platform.settings import S3Settings
from waiting import eventually

# Tests run beside each other: a model's second thread would spin while it waits for the first.
ONE_THREAD = {"STENO_CPU_THREADS": "1"}


class RunningPlatform:
    """A platform, its client, and the means to harm it."""

    def __init__(self, platform: Platform, client: Client) -> None:
        self.platform = platform
        self.client = client
        self._killed: dict[str, int] = {}

    def address(self, service: str) -> str:
        return self.platform.addresses[service]

    def pid(self, name: str) -> int:
        """Process id of a server or a service."""
        pid = self.child(name).pid
        assert pid is not None, f"{name} does not run"
        return pid

    def kill(self, name: str) -> None:
        """`kill -9` of a server or a service; the platform starts it again."""
        self._killed[name] = self.pid(name)
        os.kill(self._killed[name], signal.SIGKILL)

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """A server or a service does nothing for a while."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @property
    def s3(self) -> S3Settings:
        """How to reach the platform's store."""
        servers = self.platform.servers
        return S3Settings(
            s3_endpoint=servers.s3.url,
            s3_access_key=SecretStr(servers.secrets.s3_access_key),
            s3_secret_key=SecretStr(servers.secrets.s3_secret_key),
            s3_bucket=servers.s3.bucket,
        )

    async def object_keys(self, prefix: str) -> list[str]:
        """Keys in S3: of files under `uploads/`, of their pieces under `slices/`."""
        async with open_store(self.s3) as store:
            return await store.list_prefix(prefix)

    async def runs(self, name: str) -> None:
        """Waits until a killed process has been started again."""
        child = self.child(name)
        await eventually(lambda: child.running and child.pid != self._killed.get(name))

    async def all_ready(self) -> None:
        """Waits until all services are ready."""

        async def look() -> bool:
            asked = await asyncio.gather(*map(grpc_health, self.platform.addresses.values()))
            return set(asked) == {Health.READY}

        await eventually(look)

    def child(self, name: str) -> Child:
        """The process of a server or a service, whether it runs or not."""
        servers = {server.name: server.child for server in self.platform.servers.all}
        return (self.platform.children | servers)[name]


async def run_platform(stack: AsyncExitStack, workers: int, **environment: str) -> RunningPlatform:
    """Starts a platform with the model of the tests.

    Args:
        stack: stops it, and removes its folder.
        workers: how many transcription processes.
        environment: settings of all services.
    """
    folder = stack.enter_context(server_folder())
    return await run_services(stack, services([BUILTIN], workers), folder, **environment)


async def run_services(
    stack: AsyncExitStack, wanted: Sequence[Service], folder: Path, **environment: str
) -> RunningPlatform:
    """Starts a platform with these services in a folder; otherwise as run_platform does."""
    settings = ONE_THREAD | environment
    processes = [replace(service, environment=service.environment | settings) for service in wanted]
    platform = await stack.enter_async_context(Platform(folder, processes, port_base=0))
    client = await stack.enter_async_context(Client(platform.addresses))
    return RunningPlatform(platform, client)
