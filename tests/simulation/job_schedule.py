"""One schedule of the job service: what exists, what goes wrong and when, all drawn from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from simulation import job_statements
from simulation.audio import Recording, Upload
from simulation.bus import Bus
from simulation.calls import Calls
from simulation.database import Server
from simulation.job_clients import Client, Wishes
from simulation.job_promises import PROMISES, JobEvidence
from simulation.job_service import LEASE, Replica
from simulation.links import Link
from simulation.loop import Loop, Process
from simulation.schedule import Faults, Schedule, clock_of, complaints_noted, ids_of
from simulation.workers import Manners, Worker
from steno.job import aside, jobs, store
from steno.job.domain import AudioState
from steno.platform import outage
from steno.transcript import Options

PATIENCE = 120.0
"""Seconds without faults after which all that was begun has ended. One schedule in a hundred takes
20, one in thousands 60: a slice fails again and again, on a link on which each call takes 2."""


@dataclass(frozen=True, slots=True)
class JobFaults(Faults):
    """What goes wrong with replicas and workers.

    Attributes:
        manners: of the workers; that they are wrong, or repeat themselves, does not end.
    """

    manners: Manners = field(default_factory=Manners)


class JobSchedule(Schedule):
    """A world, and what happens in it."""

    mixes = ("nothing", "calls", "leases", "servers", "everything")
    promises = PROMISES
    faults: JobFaults

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, trace)
        loop = self.loop
        self._links = [Link(loop) for _ in range(4)]
        to_database, to_bus, to_upload, calls = self._links
        self.database = Server(loop, to_database, job_statements)
        self.bus = Bus(loop, to_bus)
        self.upload = Upload(loop, to_upload, self.bus)
        self.calls = Calls(loop, calls)
        self.faults = self._drawn_faults()
        self._manners = self.faults.manners
        self.replicas: list[Replica] = []
        self.workers: list[Worker] = []
        self.started: dict[str, float] = {}
        self._connections = self._random.choice((1, 2, 3, 5))
        self._retention = 2.0 if self._random.random() < 0.06 else 0.0
        self._joined_at_once = self._random.choice((1, 2, 50))
        self._names = 0

    def run(self) -> JobEvidence:
        late: list[str] = []
        replaced = _replaced(self.loop, self._joined_at_once)
        with complaints_noted(self.history, replaced):
            self.loop.run(self._run(late), Process("the schedule"))
        self.history.complaints += self.loop.problems
        return JobEvidence(
            self.history, self.database, self.bus, self.started, late, self.upload.recordings
        )

    # What is drawn

    def _drawn_faults(self) -> JobFaults:
        """Some kinds of faults: what is rare is seen best where little else happens."""
        draw, some, few = self._random.random, self._some, self._few
        mix = self.mix
        until = 0.2 + 4.0 * draw() ** 2
        if mix == "nothing":
            return JobFaults(slow=some(0.5, 0.4))
        if mix == "calls":
            return JobFaults(
                until,
                slow=some(0.4, 0.4),
                lost=some(0.5, 0.1),
                impatience=some(0.6, 0.6),
                manners=Manners(repeats=some(0.4, 0.8), wrong=some(0.3, 0.8)),
            )
        if mix == "leases":
            return JobFaults(
                until=2 * LEASE,
                slow=some(0.7, 0.5),
                kills=few(0.15),
                halts=few(0.15),
                doubles=some(0.3, 0.5),
                manners=Manners(
                    slow=some(0.5, 0.8),
                    silent=some(0.3, 0.8),
                    late=0.8 * (draw() < 0.6),
                    gives_back=some(0.3, 0.5),
                    forgets=some(0.15, 0.5),
                    repeats=some(0.2, 0.6),
                    wrong=some(0.3, 0.8),
                ),
            )
        if mix == "servers":
            return JobFaults(
                until,
                slow=some(0.3, 0.3),
                kills=few(0.4),
                halts=few(0.4),
                restarts=few(0.3),
                wipes=few(0.3),
                absences=few(0.2),
            )
        return JobFaults(
            until,
            slow=some(0.3, 0.3),
            lost=some(0.3, 0.05),
            impatience=some(0.3, 0.5),
            kills=few(0.25),
            halts=few(0.25),
            restarts=few(0.15),
            wipes=few(0.15),
            absences=few(0.1),
            doubles=some(0.2, 0.5),
            manners=Manners(
                slow=some(0.2, 0.6),
                silent=some(0.2, 0.8),
                late=some(0.2, 0.8),
                gives_back=some(0.2, 0.5),
                forgets=some(0.1, 0.5),
                repeats=some(0.3, 0.6),
                wrong=some(0.3, 0.8),
            ),
        )

    def _drawn_recording(self) -> Recording:
        draw = self._random.random
        length = self._random.choice((0, 1, 1, 1, 2, 2, 3))
        recording = Recording(self._uuid(), length)
        if length and draw() < 0.06:
            recording.hopeless = frozenset({int(length * draw())})
        elif length and draw() < 0.04:
            recording.stubborn = frozenset({int(length * draw())})
        elif length and draw() < 0.1:
            recording.moody = {int(length * draw()): 1 + (draw() < 0.3)}
        return recording

    def _drawn_wishes(self, recording: Recording) -> Wishes:
        draw = self._random.random
        return Wishes(
            recording.audio_id,
            Options("builtin", language_code="en" if draw() < 0.6 else ""),
            asked_at_once=1 + (draw() < 0.25),
            watchers=1 + (draw() < 0.15),
            cuts=self._some(0.3, 0.5),
            cancels=2.0 * draw() ** 2 if draw() < 0.15 else None,
            deadline=3.0 + 5.0 * draw() if draw() < 0.06 else None,
            allow_gaps=draw() < 0.3,
            retries=draw() < 0.5,
            deletes=draw() < 0.2,
        )

    # What happens

    async def _run(self, late: list[str]) -> None:
        for _ in range(self._random.choice((1, 2, 2))):
            self._start_replica()
        for _ in range(self._random.choice((1, 1, 2, 2, 3))):
            self._start_worker()
        beside = []
        clients = []
        for number in range(1 + (self._random.random() < 0.2)):
            recording = self._drawn_recording()
            self.upload.recordings[recording.audio_id] = recording
            beside.append(self._prepare(recording))
            client = Client(
                f"client {number}",
                self.loop,
                self.calls,
                self.replicas,
                self.history,
                wishes=self._drawn_wishes(recording),
            )
            clients.append(self.loop.create_task(client.run(), name=f"client {number}"))
        faults = self.faults
        acts = [self._kill] * faults.kills + [self._halt_one] * faults.halts
        beside.append(self._go_wrong(acts))
        others = [self.loop.create_task(each) for each in beside]
        done, pending = await asyncio.wait(clients, timeout=self.faults.until + PATIENCE)
        late += [task.get_name() for task in pending]
        self._raise_what_nobody_was_told([*done, *(other for other in others if other.done())])
        await self._until_settled(late)

    async def _until_settled(self, late: list[str]) -> None:
        """Waits for jobs of which nobody had learned, and for the relay."""
        tables = self.database.tables
        deadline = self.loop.time() + PATIENCE
        while any(job["end_time"] is None for job in tables["jobs"].values()) or any(
            not event["published"] for event in tables["events"].values()
        ):
            if self.loop.time() > deadline:
                late.append("a job, or the relay,")
                return
            await asyncio.sleep(0.2)

    async def _prepare(self, recording: Recording) -> None:
        draw = self._random.random
        fate = draw()
        if draw() < 0.5:
            recording.cut = recording.length
            recording.state = AudioState.READY
        else:
            await self.upload.prepare(recording, 0.6, rejected=draw() < 0.05)
        if fate < 0.04:
            await asyncio.sleep(draw())
            self.upload.delete(recording)

    def _heal(self) -> None:
        super()._heal()
        self._manners = replace(self._manners, slow=0.0, silent=0.0, late=0.0, forgets=0.0)

    def _kill(self) -> None:
        """Something dies, and another comes in its place."""
        place = int(self._random.random() * (len(self.replicas) + len(self.workers)))
        if place < len(self.replicas):
            self._kill_replica(place)
        else:
            self._say(f"{self.workers[place - len(self.replicas)].process.name} is killed")
            self.workers[place - len(self.replicas)].process.kill()
            self._start_worker()

    def _halt_one(self) -> None:
        """Something stands still for a while: less than a lease, or more."""
        processes = [each.process for each in self.replicas] + [
            each.process for each in self.workers
        ]
        process = self._random.choice(processes)
        if process.runs:
            self._halt(process, 6.0 * self._random.random() ** 2)

    def _new_replica(self) -> Replica:
        self._names += 1
        name = f"job {self._names}"
        replica = Replica(
            name,
            self.loop,
            self.database,
            self.bus,
            self.upload,
            connections=self._connections,
            retention=self._retention,
        )
        replica.start()
        self.started[name] = self.loop.time()
        return replica

    def _start_worker(self) -> None:
        worker = Worker(
            f"worker {len(self.workers) + 1}",
            self.loop,
            self.bus,
            self.upload,
            self.calls,
            self.replicas,
            self.history,
            lambda: self._manners,
        )
        self.workers.append(worker)
        worker.start()


def _replaced(loop: Loop, joined_at_once: int) -> list[AbstractContextManager[Any]]:
    """The service has the clock and the ids of a loop.

    So few slices are joined at once that some are left for later.
    """
    return [
        *(
            mock.patch.object(kind.__init__, "__defaults__", (loop.time,))
            for kind in (aside.Aside, outage.OutageGuard)
        ),
        mock.patch.object(jobs, "datetime", clock_of(lambda: loop.now)),
        mock.patch.object(store, "uuid4", ids_of(loop)),
        mock.patch.object(store, "RESULTS_AT_ONCE", joined_at_once),
    ]
