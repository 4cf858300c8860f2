"""Two versions of the services beside each other: same servers, same database, same streams."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from builtin_model import BUILTIN
from steno.local.child import Child, Command
from steno.local.health import grpc_health, metrics_health, must_be_ready
from steno.local.ports import HOST, free_port
from steno.local.supervisor import READY_SECONDS, Service, services
from waiting import eventually

ROOT = Path(__file__).parents[1]

PROGRESS = {
    "prepare": ("steno_prepare_attempts_total", {"end": "ready"}),
    "transcription": ("steno_tasks_total", {"how": "done"}),
}
"""The counter that says that a process has done its work; others answer calls."""
ANSWERED = ("grpc_server_handled_total", {"grpc_code": "OK"})


def is_known(ref: str) -> bool:
    """Whether this clone has a git ref."""
    look = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]
    return subprocess.run(look, stdout=subprocess.DEVNULL).returncode == 0


def check_out(ref: str, folder: Path, *paths: str) -> None:
    """Writes some paths of a git ref into a folder."""
    archive = ["git", "-C", str(ROOT), "archive", ref, *paths]
    files = subprocess.run(archive, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-xC", str(folder)], input=files, check=True)


def code_of(ref: str, folder: Path) -> Path:
    """The source root of a git ref, with its own contracts generated."""
    check_out(ref, folder, "services", "proto", "hatch_build.py")
    subprocess.run([sys.executable, "hatch_build.py"], cwd=folder, check=True)
    return folder / "services"


class Version:
    """One process of each service, as some version of the code has it."""

    def __init__(self, name: str, code: Path, logs: Path) -> None:
        """Takes the version's name and its source root; nothing runs yet."""
        self.name = name
        self._code = code
        self._logs = logs
        self._services = services([BUILTIN], workers=1)
        ports = {port for service in self._services for port in service.ports}
        self.addresses = {port: f"{HOST}:{free_port()}" for port in ports}
        self._environment: Mapping[str, str] = {}
        self._children: dict[str, Child] = {}

    def join(self, environment: Mapping[str, str]) -> None:
        """Tells it the servers, and where all versions of the services are."""
        self._environment = environment

    async def migrate(self) -> None:
        """Brings the schemas to this version."""
        schemas = sorted(path.parent.name for path in self._code.glob("steno/*/migrations"))
        migration = self._child("migrate", ["steno.platform.migrate", *schemas], {})
        await migration.done(READY_SECONDS)

    async def start(self) -> None:
        """Starts its processes and waits until they are ready."""
        await asyncio.gather(*map(self._start, self._services))

    async def stop(self) -> None:
        """Stops its processes as Kubernetes does, and waits until they have ended in good order."""
        children, self._children = self._children, {}
        await asyncio.gather(*(child.stop(grace=30) for child in children.values()))
        ends = {child.name: child.exit_status for child in children.values()}
        assert not any(ends.values()), ends

    async def done(self) -> dict[str, float]:
        """How much each of its processes has done since it was started."""
        names = [service.name for service in self._services]
        counts = await asyncio.gather(*map(self._done, names))
        return dict(zip(names, counts, strict=True))

    def errors(self) -> list[str]:
        """What its processes have logged as an error."""
        lines = [line for log in self._logs.glob("*.log") for line in log.read_text().splitlines()]
        return [line for line in lines if _level(line) == "ERROR"]

    async def _start(self, service: Service) -> None:
        metrics = self.addresses[f"{service.name}-metrics"]
        own = {
            "STENO_LISTEN": self.addresses.get(service.name, f"{HOST}:0"),
            "STENO_METRICS_LISTEN": metrics,
        }
        child = self._child(service.name, [service.module], own | service.environment)
        self._children[service.name] = child
        child.start()
        if service.serves:
            check = must_be_ready(grpc_health, self.addresses[service.name])
        else:
            check = must_be_ready(metrics_health, metrics)
        await child.ready(check, READY_SECONDS)

    def _child(self, name: str, module: Sequence[str], own: Mapping[str, str]) -> Child:
        command = Command(
            [sys.executable, "-m", *module],
            environment={**self._environment, "PYTHONPATH": str(self._code), **own},
            log=self._logs / f"{name}.log",
        )
        return Child(f"{name} of {self.name}", command)

    async def _done(self, name: str) -> float:
        counter, labels = PROGRESS.get(name, ANSWERED)
        url = f"http://{self.addresses[f'{name}-metrics']}/metrics"
        page = await asyncio.to_thread(_read, url)
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == counter and labels.items() <= sample.labels.items()
        )


def shared_addresses(versions: Sequence[Version]) -> dict[str, str]:
    """One address for each service that stands for all versions of it, as a headless Service's."""
    names = {name for version in versions for name in version.addresses}
    return {
        name: "ipv4:"
        + ",".join(version.addresses[name] for version in versions if name in version.addresses)
        for name in names
        if not name.endswith("-metrics")
    }


async def work(*versions: Version) -> None:
    """Waits until each process of these versions has done something from now on."""
    before = {version: await version.done() for version in versions}

    async def all_have() -> bool:
        idle = [
            f"{name} of {version.name}"
            for version in versions
            for name, count in (await version.done()).items()
            if count <= before[version][name]
        ]
        assert not idle, f"these do nothing: {idle}"
        return True

    await eventually(all_have, within=120, every=0.5)


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read().decode()  # type: ignore[no-any-return]


def _level(line: str) -> str:
    """The level of a line of the log; of what is no line of it, such as a traceback, too."""
    try:
        return str(json.loads(line)["level"])
    except (ValueError, KeyError, TypeError):
        return "ERROR" if line.startswith("Traceback") else ""
