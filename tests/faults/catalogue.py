"""All faults: how each is done and healed, and whether it bit."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal, LiteralString

import grpc
import nats
import psycopg
from nats.js.errors import Error as JetStreamError

from faults import harm
from faults.fault import Fault, Scene
from faults.proxy import Passing
from faults.system import SERVERS, System, kind_of
from processes import halt
from steno.v1 import job_pb2, transcript_pb2
from waiting import eventually

RESTART_SECONDS = 90.0
"""Longest time until a process that was killed runs again; the supervisor makes pauses."""


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
    child = scene.system.running.child(victim)
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
    make: Callable[[Scene], Passing], least: float, most: float
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


def _half_open(scene: Scene) -> Passing:
    up, down = scene.random.choice(((True, False), (False, True), (True, True)))
    return harm.HalfOpen(up=up, down=down)


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


def _clocks(system: System) -> list[str]:
    return list(system.clocks)


async def _step_clock(scene: Scene, victim: str) -> str:
    """The wall clock of a service is wrong for a while: by seconds, minutes or an hour."""
    clock = scene.system.clocks[victim]
    bite = await scene.system.holds(victim)
    try:
        clock.step(scene.random.choice((-3600, -90, -5, 5, 90, 3600)))
        await scene.hold(1, 6)
        return bite or await scene.system.holds(victim)
    finally:
        clock.step(0)


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
        ended = scene.system.running.child(victim).pid != pid
    finally:
        disk.clear()
        if victim != "postgres" and scene.system.running.child(victim).running:
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


_OTHER_ATTEMPTS: LiteralString = """
SELECT task_id::text, CASE attempt WHEN 1 THEN 1001 ELSE attempt - 1 END AS attempt
FROM job.tasks WHERE state = 'LEASED' ORDER BY random() LIMIT 5
"""


async def _stale_worker(scene: Scene, victim: str) -> str:
    """A worker brings a result, with the attempt of another lease than the one that counts."""
    system, history = scene.system, scene.load.history
    tasks = await eventually(lambda: system.rows(_OTHER_ATTEMPTS), within=5)
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
        Fault("pause-past-lease", 1.5, _leasers, _outlive_lease),
        Fault("callers-leave", 4, _only("clients"), _leave),
        Fault("sever", 6, _links(), _on_link(lambda scene: harm.Severed(), 0.2, 3)),
        Fault("half-open", 3, _links(), _on_link(_half_open, 1, 8)),
        Fault("delay", 4, _links(), _on_link(lambda scene: harm.Late(0.3), 1, 5)),
        Fault("late-answer", 4, _links(), _on_link(lambda s: harm.Late(1.5, up=False), 1, 5)),
        Fault("narrow", 3, _links(), _on_link(lambda scene: harm.Slow(20_000), 1, 5)),
        Fault(
            "lose-answers",
            5,
            _links(*ANSWERING),
            _on_link(lambda s: harm.AnswerLost(s.chance), 0.5, 3),
        ),
        Fault(
            "commit-unknown",
            8,
            _links("postgres"),
            _on_link(lambda s: harm.CommitUnknown(s.chance), 0.5, 3),
        ),
        Fault(
            "s3-503",
            3,
            _links("s3"),
            _on_link(lambda s: harm.Refusing(s.chance, after=False), 0.5, 4),
        ),
        Fault(
            "s3-503-after-effect",
            3,
            _links("s3"),
            _on_link(lambda s: harm.Refusing(s.chance, after=True), 0.5, 4),
        ),
        Fault("s3-truncate", 3, _links("s3"), _on_link(lambda s: harm.Truncated(s.chance), 1, 4)),
        Fault("terminate-backends", 6, _only("postgres"), _terminate),
        Fault("read-only", 2, _only("postgres"), _read_only),
        Fault("step-clock", 3, _clocks, _step_clock),
        Fault("disk-full", 3, _disks, _fill_disk),
        Fault("wipe-nats", 2, _only("nats"), _wipe_nats),
        Fault("cut-nats-short", 2, _only("nats"), _cut_nats_short),
        Fault("repeat-messages", 3, _only("nats"), _repeat_messages),
        Fault("stale-worker", 3, _only("job"), _stale_worker),
    )
}
