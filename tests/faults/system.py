"""The system under test: the real platform, two replicas of what may have two, behind links.

Nothing of the product is changed for that. Ports are chosen before it starts, so that each service
is told the addresses of its own links instead of those of the servers behind them.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from faults.clock import Clock, clear, library
from faults.disk import Disk, mounted
from faults.proxy import Calls, Link, Messages, Turns
from folders import server_folder
from processes import halt
from running_platform import RunningPlatform, run_services
from steno.local.data_dir import Secrets
from steno.local.ports import HOST, choose_ports, free_port
from steno.local.servers import NAMES as SERVER_PORTS
from steno.local.supervisor import Service
from steno.platform.client import open_channel
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub
from steno.v1.job_pb2_grpc import JobServiceStub, TaskServiceStub
from steno.v1.transcription_pb2_grpc import TranscriptionServiceStub
from steno.v1.upload_pb2_grpc import UploadServiceStub

CLIENTS = "clients"
SERVERS = ("postgres", "nats", "s3")
MODEL = "null"

SHORT_LEASES = {
    "STENO_TASK_LEASE_SECONDS": "4",
    "STENO_PREPARE_LEASE_SECONDS": "4",
    "STENO_SESSION_LEASE_SECONDS": "4",
    "STENO_JOB_MESSAGE_CHECK_SECONDS": "2",
}
"""For tests that have no minute. A soak runs with what the product comes with."""

_DEPENDENCIES = {
    "upload": ("postgres", "nats", "s3"),
    "prepare": ("postgres", "nats", "s3"),
    "job": ("postgres", "nats", "upload"),
    "concatenation": ("postgres", "nats", "s3", "upload", "job", "transcription"),
    "transcription": ("nats", "s3", "job"),
    CLIENTS: ("s3", "upload", "job", "concatenation", "transcription"),
}
"""Who calls whom: the arrows of the architecture's picture."""

_TURNS: dict[str, Callable[[], Turns]] = {"postgres": Turns, "s3": Turns, "nats": Messages}

_MODULES = {
    "upload": "steno.upload",
    "prepare": "steno.upload.prepare",
    "job": "steno.job",
    "concatenation": "faults.null_listener",
    "transcription": "faults.null_worker",
}


@dataclass(frozen=True)
class Shape:
    """How many processes there are of each kind, and how they are set."""

    replicas: Mapping[str, int]
    settings: Mapping[str, str]
    """Settings of the product that differ from what it comes with."""
    speed: float = 15
    """Seconds of audio that the null engine does in a second."""
    failing: float = 0
    """Share of slices at which the null engine fails, so that they are tried again."""
    crashes: Path | None = None
    """Where processes write down at which of their effects they die; None: they do not."""
    planted: str = ""
    """Name of a bug that services have (`faults.planted`)."""

    def names(self, kind: str) -> list[str]:
        """Processes of a kind, or the one server of that name."""
        count = self.replicas.get(kind, 1)
        return [kind if number == 1 else f"{kind}-{number}" for number in range(1, count + 1)]


SMALL = Shape({"transcription": 2}, SHORT_LEASES)
"""The short form: its leases are shorter than the product's."""
FULL = Shape({"job": 2, "concatenation": 2, "transcription": 2}, {})
"""What a soak harms: the product as it comes."""


def kind_of(process: str) -> str:
    """`job-2` is a `job`."""
    return process.partition("-")[0]


class System:
    """The running platform, its links, and what the nemesis and the checker need of it."""

    def __init__(
        self,
        running: RunningPlatform,
        links: Mapping[str, Link],
        disks: Mapping[str, Disk],
        clocks: Mapping[str, Clock],
        shape: Shape,
    ) -> None:
        self.running = running
        self.links = links
        self.disks = disks
        self.clocks = clocks
        self.shape = shape
        self.database_url = running.platform.servers.postgres.url
        """Of the Postgres that all use at the moment."""
        self.uploads: list[UploadServiceStub] = []
        self.jobs: list[JobServiceStub] = []
        self.tasks: list[TaskServiceStub] = []
        self.sessions: list[ConcatenationServiceStub] = []
        self.recognizers: list[TranscriptionServiceStub] = []
        self._halted: list[int] = []

    @property
    def services(self) -> list[str]:
        """All processes but the servers."""
        return list(self.running.platform.children)

    def links_of(self, process: str) -> list[Link]:
        """Links that begin or end at a process."""
        return [link for name, link in self.links.items() if process in name.split("->")]

    async def rows(self, statement: LiteralString, *values: object) -> list[dict[str, Any]]:
        """Asks Postgres, past all links."""
        connect = psycopg.AsyncConnection.connect
        url = self.database_url
        async with await connect(url, autocommit=True, row_factory=dict_row) as db:
            cursor = await db.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []

    async def holds(self, process: str) -> str:
        """What a process holds at this moment that a fault can take from it; empty if nothing.

        A fault counts only if this says something: else nobody could have felt it.
        """
        links = self.links_of(process)
        for link in links:
            if link.unanswered:
                return f"an unanswered call on {link.name}"
            if process == "nats" and link.busy:
                return f"bytes on {link.name}"
        ports = [c.port for link in links for c in link.connections]
        held = await self.rows(_HELD, process, process, ports)
        return str(held[0]["what"]) if held else ""

    async def halt_all_but_one(self, dice: random.Random) -> list[str]:
        """Halts the others of each kind for good, and returns who they are.

        Clients do not call them any more, as those of a cluster would not: what is not ready is
        taken out of the endpoints. Other services may: they are told both addresses.
        """
        stubs: dict[str, list[list[Any]]] = {
            "job": [self.jobs, self.tasks],
            "concatenation": [self.sessions],
            "transcription": [self.recognizers],
        }
        halted = []
        for kind, count in self.shape.replicas.items():
            stays = dice.randrange(count)
            halted += [name for n, name in enumerate(self.shape.names(kind)) if n != stays]
            for of_kind in stubs.get(kind, []):
                of_kind[:] = [of_kind[stays]]
        for name in halted:
            await self.running.runs(name)
            pid = self.running.pid(name)
            self._halted.append(pid)
            await halt(pid)
        return halted

    def go_on(self) -> None:
        """Those that were halted go on, so that they can end."""
        for pid in self._halted:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def clear(self) -> None:
        """Heals all links."""
        for link in self.links.values():
            link.heal()


_HELD: LiteralString = """
SELECT 'the lease of a slice' AS what FROM job.tasks WHERE state = 'LEASED' AND worker_id = %s
UNION ALL
SELECT 'the lease of an audio' FROM upload.audio WHERE lease_until > now() AND %s = 'prepare'
UNION ALL
SELECT 'an open transaction' FROM pg_stat_activity
WHERE client_port = ANY (%s) AND xact_start IS NOT NULL AND backend_type = 'client backend'
LIMIT 1
"""


@asynccontextmanager
async def run_system(shape: Shape, *, clocks_of_their_own: bool) -> AsyncIterator[System]:
    """Starts the platform behind links; leaving ends all of it and removes its folder.

    Services have clocks of their own only if wanted: they take a good part of the time.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(server_folder()).resolve()
        processes = [name for kind in _MODULES for name in shape.names(kind)]
        serving = [name for name in processes if kind_of(name) != "prepare"]
        names = [*serving, *(f"{name}-metrics" for name in processes), *SERVER_PORTS]
        ports = choose_ports(folder / "ports.json", names)
        links = {}
        for caller in [*processes, CLIENTS]:
            for kind in _DEPENDENCIES[kind_of(caller)]:
                for target in shape.names(kind):
                    name = f"{caller}->{target}"
                    link = Link(name, free_port(), ports[target], _TURNS.get(kind, Calls))
                    links[name] = await stack.enter_async_context(link)
        disks = {}
        for server in SERVERS:
            if disk := stack.enter_context(mounted(folder / server)):
                disks[server] = disk
        clocks = {}
        if clocks_of_their_own and (found := library()):
            stack.callback(clear)
            (folder / "clocks").mkdir()
            clocks = {name: Clock(found, folder / "clocks" / name) for name in processes}
        secrets = Secrets.of(folder)
        wanted = [
            Service(
                name,
                _module(name, shape),
                serves=kind_of(name) != "prepare",
                environment=_environment(name, links, secrets, shape)
                | (clocks[name].environment if clocks else {}),
            )
            for name in processes
        ]
        running = await run_services(stack, wanted, folder, **shape.settings)
        system = System(running, links, disks, clocks, shape)
        for kind in ("upload", "job", "concatenation", "transcription"):
            for target in shape.names(kind):
                # Each call is written down with the answer that it got: none is repeated unseen.
                opening = open_channel(links[f"{CLIENTS}->{target}"].address, retries=False)
                channel = await stack.enter_async_context(opening)
                if kind == "upload":
                    system.uploads.append(UploadServiceStub(channel))
                elif kind == "job":
                    system.jobs.append(JobServiceStub(channel))
                    system.tasks.append(TaskServiceStub(channel))
                elif kind == "concatenation":
                    system.sessions.append(ConcatenationServiceStub(channel))
                else:
                    system.recognizers.append(TranscriptionServiceStub(channel))
        stack.callback(system.go_on)
        yield system


def _module(name: str, shape: Shape) -> str:
    if shape.planted:
        return "faults.planted"
    return _MODULES[kind_of(name)] if shape.crashes is None else "faults.crashing"


def _environment(
    name: str, links: Mapping[str, Link], secrets: Secrets, shape: Shape
) -> dict[str, str]:
    """Where a process finds what it needs: at its own links."""

    def port(target: str) -> int:
        return links[f"{name}->{target}"].port

    found = {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "STENO_MODELS": MODEL,
        "STENO_MODEL": MODEL,
        "STENO_WORKER_ID": name,
        "STENO_FAULTS_SPEED": str(shape.speed),
        "STENO_FAULTS_FAILING": str(shape.failing),
        "STENO_LOG_FORMAT": "text",
    }
    service = "upload" if kind_of(name) == "prepare" else kind_of(name)
    if shape.planted:
        found["STENO_PLANTED"] = shape.planted
        found["STENO_PLANTED_MODULE"] = _MODULES[kind_of(name)]
        found["STENO_PLANTED_SERVICE"] = service
    if shape.crashes is not None:
        found["STENO_CRASH_MODULE"] = _MODULES[kind_of(name)]
        found["STENO_CRASH_SERVICE"] = service
        found["STENO_CRASH_FOLDER"] = str(shape.crashes)
        found["STENO_CRASH_CHANCE"] = "0.3"
    for kind in _DEPENDENCIES[kind_of(name)]:
        if kind == "postgres":
            found["STENO_POSTGRES_URL"] = (
                f"postgresql://steno:{secrets.postgres_password}@{HOST}:{port(kind)}/steno"
            )
        elif kind == "nats":
            found["STENO_NATS_URL"] = f"nats://steno:{secrets.nats_password}@{HOST}:{port(kind)}"
        elif kind == "s3":
            found["STENO_S3_ENDPOINT"] = f"http://{HOST}:{port(kind)}"
            found["STENO_S3_PUBLIC_ENDPOINT"] = f"http://{links[f'{CLIENTS}->s3'].address}"
        else:
            replicas = ",".join(f"{HOST}:{port(target)}" for target in shape.names(kind))
            found[f"STENO_{kind.upper()}_ADDRESS"] = f"ipv4:{replicas}"
    return found
