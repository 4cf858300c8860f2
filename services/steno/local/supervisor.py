"""Servers, migrations and services: the whole platform as children of one process.

What is started, and in which order:

    postgres -> migrations -.
    nats ------------------- > upload, prepare, job, concatenation, transcription x workers
    s3 ---------------------'

Whatever ends unexpectedly is started again. Stopping goes the other way round: services first, so
that they can hand back what they hold.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from steno.local.child import Child, Command, StartError, how
from steno.local.data_dir import Running, locked
from steno.local.health import grpc_health, metrics_health, must_be_ready
from steno.local.ports import HOST, choose_ports
from steno.local.servers import NAMES as SERVER_PORTS
from steno.local.servers import LocalServers
from steno.models import name_of

GRACE_SECONDS = 5.0
"""Time that services have to end in good order."""
READY_SECONDS = 120.0
"""Long, for slow and busy machines: who ends instead of becoming ready is noticed at once."""
MODEL_SECONDS = 600.0
"""Loading a large model from a slow disk takes minutes."""
_SLOW_SECONDS = 30.0
"""Time after which people at the terminal wonder."""
_BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 30.0
"""Who ran for so long does not pay for earlier crashes."""


@dataclass(frozen=True)
class Service:
    """One process of the platform.

    Attributes:
        name: of the process; its ports are called `<name>` and `<name>-metrics`.
        module: what `python -m` runs.
        serves: whether others call it. If not, it is ready when its metrics answer.
        environment: what it reads beside what all read.
        ready_seconds: longest time from its start until it is ready.
    """

    name: str
    module: str
    serves: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    ready_seconds: float = READY_SECONDS

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of its ports."""
        return (*((self.name,) if self.serves else ()), f"{self.name}-metrics")


def worker_name(number: int) -> str:
    """Name of a worker, from 1. The first is the one that clients speak to."""
    return "transcription" if number == 1 else f"transcription-{number}"


def services(models: Sequence[str], workers: int) -> list[Service]:
    """The platform's processes.

    Args:
        models: what is served: names, or `NAME=FOLDER`. The first is the default of jobs.
        workers: processes that transcribe, for each model.
    """
    named = [split_model(model) for model in models]
    all_workers = [model for model in named for _ in range(workers)]
    threads = max(1, (os.cpu_count() or 1) // len(all_workers))
    shared = {} if len(all_workers) == 1 else {"STENO_CPU_THREADS": str(threads)}
    return [
        Service("upload", "steno.upload"),
        Service("prepare", "steno.upload.prepare", serves=False),
        Service("job", "steno.job", environment={"STENO_MODELS": ",".join(n for n, _ in named)}),
        Service("concatenation", "steno.concatenation"),
        *(
            Service(
                worker_name(number),
                "steno.transcription",
                environment={
                    **shared,
                    "STENO_MODEL": where,
                    "STENO_MODEL_NAME": name,
                    "STENO_WORKER_ID": worker_name(number),
                },
                ready_seconds=MODEL_SECONDS,
            )
            for number, (name, where) in enumerate(all_workers, 1)
        ),
    ]


def split_model(model: str) -> tuple[str, str]:
    """The name that a model is asked for by, and where it is: `NAME=FOLDER`, or a name alone."""
    name, equals, where = model.partition("=")
    return (name, where) if equals and "/" not in name else (name_of(model), model)


_SERVICES = ("upload", "job", "transcription", "concatenation")
_METRICS = (
    "upload-metrics",
    "prepare-metrics",
    "job-metrics",
    "transcription-metrics",
    "concatenation-metrics",
)
# Offset from --port-base.
_OFFSETS = {name: i for i, name in enumerate(_SERVICES)} | {
    name: 10 + i for i, name in enumerate((*_METRICS, *SERVER_PORTS))
}
_USUAL = {name: 50051 + i for i, name in enumerate(_SERVICES)} | {
    name: 9090 + i for i, name in enumerate(_METRICS)
}


def ports_of(folder: Path, names: Sequence[str], base: int | None) -> dict[str, int]:
    """Chooses a port for each name.

    Args:
        folder: remembers the choice, so that addresses stay over restarts where they can.
        names: of the ports.
        base: first of the ports to use; 0 for free ones; None for the usual ones, or free ones
            where those are taken.

    Raises PortTaken if a port from `base` on is in use.
    """
    memory = folder / "ports.json"
    if base is None:
        return choose_ports(memory, names, usual=_USUAL)
    if base == 0:
        return choose_ports(memory, names)
    further = (name for name in names if name not in _OFFSETS)
    offsets = _OFFSETS | {name: 30 + i for i, name in enumerate(further)}
    return choose_ports(memory, names, asked={name: base + offsets[name] for name in names})


class Platform:
    """The running platform. Enter to start it, leave to stop it.

    Args:
        folder: for everything it keeps; a second platform on it is refused (FolderInUse).
        services: what to run beside the servers.
        port_base: see `ports_of`.
        say: told what a person at the terminal should know.
        migrations: services whose schemas are brought up to date first.

    Entering raises StartError, FolderInUse, PortTaken or MissingServers, with nothing left running.
    """

    def __init__(
        self,
        folder: Path,
        services: Sequence[Service],
        *,
        port_base: int | None = None,
        say: Callable[[str], None] = lambda line: None,
        migrations: Sequence[str] = ("upload", "job", "concatenation"),
    ) -> None:
        self.folder = folder.resolve()
        self._services = services
        self._port_base = port_base
        self._say = say
        self._migrations = migrations
        self._exit = AsyncExitStack()

    @property
    def logs(self) -> Path:
        """Folder of the logs, a file for each process."""
        return self.folder / "logs"

    @property
    def addresses(self) -> dict[str, str]:
        """Addresses of the gRPC servers, by service."""
        return {s.name: self.address_of(s.name) for s in self._services if s.serves}

    def address_of(self, port_name: str) -> str:
        """Address of a process by the name of its port."""
        return f"{HOST}:{self.ports[port_name]}"

    async def __aenter__(self) -> Platform:
        async with AsyncExitStack() as stack:
            stack.enter_context(locked(self.folder))
            names = [*(p for s in self._services for p in s.ports), *SERVER_PORTS]
            self.ports = ports_of(self.folder, names, self._port_base)
            self.servers = LocalServers(
                self.folder, {name: self.ports[name] for name in SERVER_PORTS}
            )
            self.children = {s.name: Child(s.name, self._command(s)) for s in self._services}
            stack.push_async_callback(self._stop)
            await self._start()
            self._watchers = self._watch()
            stack.push_async_callback(self._stop_watching)
            self._tell_others()
            stack.callback(Running.path(self.folder).unlink, missing_ok=True)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    def _command(self, service: Service) -> Command:
        own = {
            "STENO_METRICS_LISTEN": self.address_of(f"{service.name}-metrics"),
            "STENO_SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS - 2),
        }
        # Who serves nothing to others still has a gRPC server, for its health.
        own["STENO_LISTEN"] = self.address_of(service.name) if service.serves else f"{HOST}:0"
        return self._python(
            service.module, name=service.name, environment=own | service.environment
        )

    def _python(self, *arguments: str, name: str, environment: dict[str, str]) -> Command:
        shared = {
            "STENO_LOG_FORMAT": os.environ.get("STENO_LOG_FORMAT", "text"),
            "STENO_SANDBOX": os.environ.get("STENO_SANDBOX", "warn"),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(("STENO_TLS_CA", "STENO_TLS_CERTIFICATE", "STENO_TLS_KEY"), ""),
            "STENO_HEALTH_LISTEN": "",
            **self.servers.environment,
            **{f"STENO_{n.upper()}_ADDRESS": address for n, address in self.addresses.items()},
        }
        return Command(
            [sys.executable, "-m", *arguments],
            environment={**os.environ, **shared, **environment},
            log=self.logs / f"{name}.log",
        )

    async def _start(self) -> None:
        self._say("starting Postgres, NATS and S3")
        await _together(self._start_postgres(), self.servers.nats.start(), self.servers.s3.start())
        self._say("starting " + ", ".join(service.name for service in self._services))
        await _together(*(self._start_service(service) for service in self._services))

    async def _start_postgres(self) -> None:
        await self.servers.postgres.start()
        command = self._python(
            "steno.platform.migrate", *self._migrations, name="migrate", environment={}
        )
        await Child("migrate", command).done(READY_SECONDS)

    async def _start_service(self, service: Service) -> None:
        child = self.children[service.name]
        child.start()
        if service.serves:
            check = must_be_ready(grpc_health, self.address_of(service.name))
        else:
            check = must_be_ready(metrics_health, self.address_of(f"{service.name}-metrics"))
        slow = asyncio.get_running_loop().call_later(_SLOW_SECONDS, self._say_slow, child)
        try:
            await child.ready(check, service.ready_seconds)
        finally:
            slow.cancel()

    def _say_slow(self, child: Child) -> None:
        self._say(f"{child.name} is not ready yet; log: {child.command.log}")

    def _watch(self) -> list[asyncio.Task[None]]:
        def start(service: Service) -> Callable[[], Awaitable[None]]:
            return lambda: self._start_service(service)

        watched = [(server.child, server.start) for server in self.servers.all] + [
            (self.children[service.name], start(service)) for service in self._services
        ]
        return [asyncio.create_task(self._keep_up(child, again)) for child, again in watched]

    async def _keep_up(self, child: Child, start: Callable[[], Awaitable[None]]) -> None:
        """Starts a child again whenever it ends."""
        crashes = 0
        while True:
            since = time.monotonic()
            status = await child.wait()
            if time.monotonic() - since > _STEADY_SECONDS:
                crashes = 0
            delay = _BACKOFF_SECONDS[min(crashes, len(_BACKOFF_SECONDS) - 1)]
            crashes += 1
            self._say(
                f"{child.name} ended ({how(status)}), starts again in {delay:g} s; "
                f"log: {child.command.log}"
            )
            await child.kill()  # what it has left behind
            await asyncio.sleep(delay)
            try:
                await start()
            except StartError as error:
                self._say(f"{child.name} did not start: {str(error).splitlines()[0]}")
                await child.kill()
            else:
                self._say(f"{child.name} is ready again")

    def _tell_others(self) -> None:
        Running(
            pid=os.getpid(),
            addresses=self.addresses,
            metrics={s.name: self.address_of(f"{s.name}-metrics") for s in self._services},
            servers={server.name: self.address_of(server.name) for server in self.servers.all},
            models=next(
                (
                    s.environment["STENO_MODELS"].split(",")
                    for s in self._services
                    if "STENO_MODELS" in s.environment
                ),
                [],
            ),
            logs=str(self.logs),
        ).write(self.folder)

    async def _stop_watching(self) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    async def _stop(self) -> None:
        await asyncio.gather(*(child.stop(GRACE_SECONDS) for child in self.children.values()))
        await self.servers.stop()


async def _together(*work: Awaitable[None]) -> None:
    """Does all at once; the first error cancels the rest and is raised as itself."""

    async def do(one: Awaitable[None]) -> None:
        await one

    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(do(one))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
