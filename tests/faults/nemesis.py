"""The nemesis: which faults there are, how each is done and healed, and whether it bit.

Faults come alone and in pairs, drawn by the seed; a quarter of the time there is none. A fault
counts only if it bit: at that moment its victim held a lease, an open transaction or an unanswered
call, or bytes were on the link that it harmed. Others are told of as idle.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any, Literal

import grpc
import nats
import psycopg
from nats.js.errors import Error as JetStreamError

from faults import proxy
from faults.load import Load
from faults.system import SERVERS, System, kind_of
from processes import halt
from steno.v1 import job_pb2, transcript_pb2
from waiting import eventually

TRUCE = 0.25
"""Share of the time in which nothing is harmed anew."""
DRAWN = 3
"""Victims that are drawn for a fault; one is struck."""
RESTART_SECONDS = 90.0
"""Longest time until a process that was killed runs again; the supervisor makes pauses."""


@dataclass
class Strike:
    """One fault that was done.

    Attributes:
        fault: its name.
        victim: process or link.
        seconds: how long it lasted.
        bite: what it took from its victim; empty if nothing: then it was idle.
    """

    fault: str
    victim: str
    seconds: float = 0.0
    bite: str = ""


class Scene:
    """What a fault needs: the system, the load, and the seed's dice."""

    def __init__(self, system: System, load: Load, dice: random.Random) -> None:
        self.system = system
        self.load = load
        self.random = dice

    def chance(self) -> bool:
        """One in three: a fault of some answers leaves some."""
        return self.random.random() < 1 / 3

    async def hold(self, least: float, most: float) -> None:
        """Lets the fault last for a while."""
        await asyncio.sleep(self.random.uniform(least, most))


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: by which it is asked for.
        weight: how often it is drawn.
        victims: whom it may strike.
        strike: does it, heals it, also when it is cancelled, and says what it took.
    """

    name: str
    weight: float
    victims: Callable[[System], list[str]]
    strike: Callable[[Scene, str], Awaitable[str]]


# Processes.


def _processes(system: System) -> list[str]:
    return [*system.services, *SERVERS]


def _services(system: System) -> list[str]:
    return system.services


async def _kill(scene: Scene, victim: str) -> str:
    return await _end(scene, victim, signal.SIGKILL)


async def _restart(scene: Scene, victim: str) -> str:
    return await _end(scene, victim, signal.SIGTERM)


async def _end(scene: Scene, victim: str, how: signal.Signals) -> str:
    running = scene.system.running
    pid = running.pid(victim)
    bite = await scene.system.holds(victim)
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    await eventually(lambda: _runs_anew(scene, victim, pid), within=RESTART_SECONDS)
    return bite


def _runs_anew(scene: Scene, victim: str, pid: int) -> bool:
    child = scene.system.running._child(victim)
    return child.running and child.pid != pid


async def _pause(scene: Scene, victim: str) -> str:
    return await _halt(scene, victim, 0.5, 4)


async def _outlive_lease(scene: Scene, victim: str) -> str:
    lease = _lease_seconds(scene.system)[kind_of(victim)]
    return await _halt(scene, victim, lease + 2, lease + 4)


def _lease_seconds(system: System) -> dict[str, float]:
    settings = system.shape.settings
    return {
        "prepare": float(settings.get("STENO_PREPARE_LEASE_SECONDS", 20)),
        "transcription": float(settings.get("STENO_TASK_LEASE_SECONDS", 20)),
        "concatenation": float(settings.get("STENO_SESSION_LEASE_SECONDS", 10)),
    }


def _leasers(system: System) -> list[str]:
    return [name for name in system.services if kind_of(name) in _lease_seconds(system)]


async def _halt(scene: Scene, victim: str, least: float, most: float) -> str:
    pid = scene.system.running.pid(victim)
    bite = await scene.system.holds(victim)
    try:
        await halt(pid)
        await scene.hold(least, most)
        waiting = [link.name for link in scene.system.links_of(victim) if link.unanswered]
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return bite or (f"an unanswered call on {waiting[0]}" if waiting else "")


# Callers.


async def _leave(scene: Scene, victim: str) -> str:
    """All calls of clients that are under way are cancelled at once."""
    calls = list(scene.load.in_flight)
    for call in calls:
        call.cancel()
    return f"{len(calls)} calls" if calls else ""


# Links.


def _links(*targets: str) -> Callable[[System], list[str]]:
    def found(system: System) -> list[str]:
        return [
            name
            for name in system.links
            if not targets or kind_of(name.rpartition(">")[2]) in targets
        ]

    return found


def _on_link(
    make: Callable[[Scene], proxy.Fault], least: float, most: float
) -> Callable[[Scene, str], Awaitable[str]]:
    async def strike(scene: Scene, victim: str) -> str:
        link = scene.system.links[victim]
        fault = make(scene)
        link.harm(fault)
        try:
            await scene.hold(least, most)
        finally:
            link.heal()
        return f"{fault.bites} times" if fault.bites else ""

    return strike


def _half_open(scene: Scene) -> proxy.Fault:
    up, down = scene.random.choice(((True, False), (False, True), (True, True)))
    return proxy.HalfOpen(up=up, down=down)


# Servers.


async def _terminate(scene: Scene, victim: str) -> str:
    """Connections to Postgres are closed by the server: of those in a transaction all, if any."""
    bitten = 0
    for _ in range(scene.random.randint(1, 10)):
        with suppress(psycopg.OperationalError):
            rows = await scene.system.rows(
                "SELECT xact_start IS NOT NULL AS busy, pg_terminate_backend(pid) FROM"
                " pg_stat_activity WHERE backend_type = 'client backend'"
                " AND pid <> pg_backend_pid() AND (xact_start IS NOT NULL OR random() < 0.1)"
            )
            bitten += sum(row["busy"] for row in rows)
        await scene.hold(0.01, 0.1)
    return f"{bitten} transactions" if bitten else ""


async def _read_only(scene: Scene, victim: str) -> str:
    """Postgres takes nothing that is written, as during a failover."""
    refused = "SELECT sum(xact_rollback)::int AS refused FROM pg_stat_database"
    (before,) = await scene.system.rows(refused)
    try:
        await _set_read_only(scene.system, "on")
        await scene.hold(0.5, 3)
    finally:
        await asyncio.shield(_set_read_only(scene.system, "off"))
    (after,) = await scene.system.rows(refused)
    count = after["refused"] - before["refused"]
    return f"{count} transactions" if count > 0 else ""


async def _set_read_only(system: System, value: Literal["on", "off"]) -> None:
    async def done() -> bool:
        try:
            await system.rows("SET default_transaction_read_only = off")
            await system.rows(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            await system.rows("SELECT pg_reload_conf()")
        except psycopg.OperationalError:
            return False
        return True

    await eventually(done)


def _disks(system: System) -> list[str]:
    return list(system.disks)


async def _fill_disk(scene: Scene, victim: str) -> str:
    """The disk of a server is full for a while.

    NATS and SeaweedFS write nothing more to a file that has met a full disk, until they are started
    again: so they are, as by an operator.
    """
    disk = scene.system.disks[victim]
    links = [link for name, link in scene.system.links.items() if name.endswith(f"->{victim}")]
    pid = scene.system.running.pid(victim)
    begun = time.monotonic()
    try:
        disk.fill()
        await scene.hold(0.5, 4)
        asked = any(connection.spoke > begun for link in links for connection in link.connections)
        ended = scene.system.running._child(victim).pid != pid
    finally:
        disk.clear()
        if victim != "postgres" and scene.system.running._child(victim).running:
            await _kill(scene, victim)
    return "its end" if ended else "bytes that it was sent" if asked else ""


async def _wipe_nats(scene: Scene, victim: str) -> str:
    """NATS dies, and its data with it."""
    data = scene.system.running.platform.servers.nats.folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    return await _kill(scene, "nats")


async def _cut_nats_short(scene: Scene, victim: str) -> str:
    """NATS dies, and of what it wrote last half is gone."""
    data = scene.system.running.platform.servers.nats.folder / "data"
    pid = scene.system.running.pid("nats")
    bite = await scene.system.holds("nats")
    os.kill(pid, signal.SIGKILL)
    for block in data.rglob("*.blk"):
        with suppress(OSError):
            os.truncate(block, block.stat().st_size // 2)
    await eventually(lambda: _runs_anew(scene, "nats", pid), within=RESTART_SECONDS)
    return bite


async def _repeat_messages(scene: Scene, victim: str) -> str:
    """Messages come a second time: late, and the last one first."""
    url = scene.system.running.platform.servers.nats.url
    sent = 0
    connection = await nats.connect(url, allow_reconnect=False, connect_timeout=5)
    try:
        stream = connection.jetstream()
        for name in ("STENO_TASKS", "STENO_EVENTS", "STENO_PREPARE"):
            with suppress(JetStreamError, TimeoutError):
                state = (await stream.stream_info(name)).state
                first = max(state.first_seq, state.last_seq - scene.random.randint(5, 50))
                for sequence in range(state.last_seq, first, -1):
                    with suppress(JetStreamError):
                        message = await stream.get_msg(name, sequence)
                        await stream.publish(message.subject or "", message.data or b"")
                        sent += 1
    finally:
        await connection.close()
    return f"{sent} messages" if sent else ""


async def _stale_worker(scene: Scene, victim: str) -> str:
    """A worker brings a result, with the attempt of another lease than the one that counts."""
    system, history = scene.system, scene.load.history
    tasks = await system.rows(
        "SELECT task_id::text, CASE attempt WHEN 1 THEN 2 ELSE attempt - 1 END AS attempt"
        " FROM job.tasks WHERE state = 'LEASED' ORDER BY random() LIMIT 5"
    )
    said = transcript_pb2.SliceTranscript(language_code="en")
    said.segments.add(text=" stale").end_offset.FromSeconds(1)
    refused = 0
    for task in tasks:
        operation = history.begin("stale worker", "stale_complete", task_id=task["task_id"])
        request = job_pb2.CompleteTaskRequest(
            task_id=task["task_id"], attempt=task["attempt"], transcript=said
        )
        service: Any = scene.random.choice(system.tasks)
        try:
            await service.CompleteTask(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            stale = error.code() is grpc.StatusCode.ABORTED
            refused += stale
            reason = "STALE_LEASE" if stale else str(error.details())[:200]
            told = "failed" if stale else "unknown"
            history.end(operation, told, code=error.code().name, reason=reason)  # type: ignore[arg-type]
        else:
            history.end(operation, "ok")
    return f"{refused} leases" if refused else ""


ANSWERING = ("postgres", "s3", "upload", "job", "concatenation", "transcription")
"""What calls are made to; NATS gets messages."""


def _only(*names: str) -> Callable[[System], list[str]]:
    return lambda system: list(names)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", 6, _processes, _kill),
        Fault("restart", 3, _services, _restart),
        Fault("pause", 4, _processes, _pause),
        Fault("pause-past-lease", 0.5, _leasers, _outlive_lease),
        Fault("callers-leave", 4, _only("clients"), _leave),
        Fault("sever", 6, _links(), _on_link(lambda scene: proxy.Severed(), 0.2, 3)),
        Fault("half-open", 3, _links(), _on_link(_half_open, 1, 8)),
        Fault("delay", 4, _links(), _on_link(lambda scene: proxy.Late(0.3), 1, 5)),
        Fault("late-answer", 4, _links(), _on_link(lambda s: proxy.Late(1.5, up=False), 1, 5)),
        Fault("narrow", 3, _links(), _on_link(lambda scene: proxy.Slow(20_000), 1, 5)),
        Fault(
            "lose-answers",
            5,
            _links(*ANSWERING),
            _on_link(lambda s: proxy.AnswerLost(s.chance), 0.5, 3),
        ),
        Fault(
            "commit-unknown",
            8,
            _links("postgres"),
            _on_link(lambda s: proxy.CommitUnknown(s.chance), 0.5, 3),
        ),
        Fault(
            "s3-503",
            3,
            _links("s3"),
            _on_link(lambda s: proxy.Refusing(s.chance, after=False), 0.5, 4),
        ),
        Fault(
            "s3-503-after-effect",
            3,
            _links("s3"),
            _on_link(lambda s: proxy.Refusing(s.chance, after=True), 0.5, 4),
        ),
        Fault("s3-truncate", 3, _links("s3"), _on_link(lambda s: proxy.Truncated(s.chance), 1, 4)),
        Fault("terminate-backends", 6, _only("postgres"), _terminate),
        Fault("read-only", 2, _only("postgres"), _read_only),
        Fault("disk-full", 3, _disks, _fill_disk),
        Fault("wipe-nats", 2, _only("nats"), _wipe_nats),
        Fault("cut-nats-short", 2, _only("nats"), _cut_nats_short),
        Fault("repeat-messages", 3, _only("nats"), _repeat_messages),
        Fault("stale-worker", 3, _only("job"), _stale_worker),
    )
}


class Nemesis:
    """Draws faults by the seed, and does them.

    Two lanes do one fault after the other, each with another victim: so faults come alone and in
    pairs, and a long one beside several short ones. In a truce neither begins any.
    """

    LANES = 2

    def __init__(
        self,
        system: System,
        load: Load,
        seed: int,
        faults: Sequence[str] = tuple(FAULTS),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._seed = seed
        self._system = system
        self._history = load.history
        self._load = load
        self._faults = [FAULTS[name] for name in faults]
        self._say = say
        self._struck: set[str] = set()
        self.strikes: list[Strike] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Harms until `stopping` is set, and heals everything."""
        dice = random.Random(f"{self._seed} truces")
        while not stopping.is_set():
            truce = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(self.LANES):
                    group.create_task(self._lane(random.Random(dice.getrandbits(64)), truce))
                await _until(stopping, dice.uniform(6, 18))
                truce.set()
            await _until(stopping, dice.uniform(6, 18) * TRUCE / (1 - TRUCE))
        self._system.clear()

    async def _lane(self, dice: random.Random, truce: asyncio.Event) -> None:
        while not truce.is_set():
            drawn = self._draw(dice)
            scene = Scene(self._system, self._load, random.Random(dice.getrandbits(64)))
            if drawn:
                await self.strike(*drawn, scene)
            await _until(truce, dice.uniform(0, 1))

    def _draw(self, dice: random.Random) -> tuple[Fault, str] | None:
        (fault,) = dice.choices(self._faults, [fault.weight for fault in self._faults])
        victims = fault.victims(self._system)
        drawn = [dice.choice(victims) for _ in range(DRAWN)] if victims else []
        free = [victim for victim in drawn if victim not in self._struck]
        # Of the links that are drawn, one on which somebody speaks.
        busy = [v for v in free if v in self._system.links and self._system.links[v].busy]
        return (fault, (busy or free)[0]) if free else None

    async def strike(self, fault: Fault, victim: str, scene: Scene) -> None:
        """Does one fault, and writes it down."""
        operation = self._history.begin("nemesis", fault.name, victim=victim)
        strike = Strike(fault.name, victim)
        self._struck.add(victim)
        try:
            strike.bite = await fault.strike(scene, victim)
        except (
            AssertionError,
            OSError,
            SubprocessError,
            psycopg.Error,
            nats.errors.Error,
        ) as error:
            # Its victim was away already, harmed by the fault beside it or the one before.
            self._say(f"{fault.name} {victim} missed: {error!r}"[:200])
        finally:
            self._struck.discard(victim)
            self.strikes.append(strike)
            self._history.end(operation, "ok", bite=strike.bite)
        strike.seconds = operation.ended - operation.begun
        self._say(f"{fault.name} {victim} {strike.seconds:.1f} s: {strike.bite or 'idle'}")


async def _until(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
