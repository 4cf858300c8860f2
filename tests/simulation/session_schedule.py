"""One schedule of live sessions: what exists, what goes wrong and when, all drawn from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest import mock

from simulation import session_statements
from simulation.bus import Bus
from simulation.calls import Calls
from simulation.database import Server
from simulation.links import Link
from simulation.loop import BEGINNING, Loop, Process
from simulation.neighbours import NO_SUCH_MODEL, Channel
from simulation.objects import LATEST, PART_BYTES, Bucket
from simulation.schedule import Faults, Schedule, clock_of, complaints_noted, ids_of
from simulation.session_clients import Client, Manners, Piece, SessionCaller, Wishes
from simulation.session_promises import PROMISES, SessionEvidence
from simulation.session_service import (
    HOUR,
    LEASE,
    SETTINGS,
    UNDECODABLE,
    LiveTranscript,
    Replica,
    decoded,
)
from steno.concatenation import decode, domain, ingest, recording, sessions, store, worker
from steno.platform import outage, removals
from steno.v1 import concatenation_pb2 as pb

PATIENCE = 90.0
"""Seconds without faults after which all that was begun has ended."""

LONGEST_HALT = HOUR - LATEST - 0.5

HERTZ = 4000
TENANTS = ("default", "other")


@dataclass(frozen=True, slots=True)
class SessionFaults(Faults):
    """What goes wrong with replicas, producers and the servers behind them.

    Attributes:
        s3_lost: a message or its answer is lost on the way to the object store.
        others_lost: the same on the way to the services that are called.
        longest: seconds that a slow message takes at most on these two ways.
        late: what the object store did not answer is done later.
        cuts: a stream breaks when something was told.
        stops: replicas that end as they are told.
        busy: the job service has too much to do.
        turns: how often producers take over from each other.
    """

    s3_lost: float = 0.0
    others_lost: float = 0.0
    longest: float = 0.4
    late: float = 0.0
    cuts: float = 0.0
    stops: int = 0
    busy: float = 0.0
    turns: float = 0.15


class SessionSchedule(Schedule):
    """A world, and what happens in it."""

    mixes = ("nothing", "producers", "storage", "leases", "servers", "everything")
    promises = PROMISES
    faults: SessionFaults

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, trace)
        loop = self.loop
        self._links = [Link(loop) for _ in range(5)]
        to_database, to_bus, to_s3, to_others, calls = self._links
        self._to_s3, self._to_others = to_s3, to_others
        self.database = Server(loop, to_database, session_statements)
        self.bus = Bus(loop, to_bus)
        self.bucket = Bucket(loop, to_s3)
        self.neighbours = Channel(loop, to_others, self.bucket)
        self.calls = Calls(loop, calls)
        self.faults = self._drawn_faults()
        self.replicas: list[Replica] = []
        self.clients: list[Client] = []
        self.started: dict[str, float] = {}
        self._connections = self._random.choice((2, 3, 5))
        self._limits = self._drawn_limits()
        self._long = self._random.random() < 0.05
        self._tidies = self._random.random() < (0.8 if self.mix == "storage" else 0.3)
        self._names = 0

    def run(self) -> SessionEvidence:
        """Lets it happen, to its end."""
        late: list[str] = []
        with complaints_noted(self.history, _replaced(self.loop, long=self._long)):
            self.loop.run(self._run(late), Process("the schedule"))
        self.history.complaints += self.loop.problems
        return SessionEvidence(
            self.history,
            self.database,
            self.bus,
            self.started,
            late,
            self.bucket,
            self.neighbours,
            self._tidies,
            (
                self._limits.get("session_max_open", SETTINGS.session_max_open),
                self._limits.get("session_tenant_max_open", SETTINGS.session_tenant_max_open),
            ),
        )

    # What is drawn

    def _drawn_faults(self) -> SessionFaults:
        """Some kinds of faults: what is rare is seen best where little else happens."""
        some, few = self._some, self._few
        until = 0.5 + 4.5 * self._random.random()
        match self.mix:
            case "nothing":
                return SessionFaults(slow=some(0.5, 0.4))
            case "producers":
                return SessionFaults(
                    until,
                    slow=some(0.4, 0.4),
                    lost=some(0.3, 0.05),
                    impatience=some(0.4, 0.5),
                    cuts=some(0.5, 0.3),
                    turns=0.6,
                )
            case "storage":
                return SessionFaults(
                    until,
                    slow=some(0.4, 0.5),
                    s3_lost=some(0.7, 0.3),
                    others_lost=some(0.5, 0.6),
                    late=some(0.7, 0.8),
                    kills=few(0.2),
                    absences=few(0.2),
                    busy=some(0.2, 0.8),
                )
            case "leases":
                return SessionFaults(
                    until=LEASE,
                    slow=some(0.9, 0.8),
                    s3_lost=some(0.3, 0.2),
                    others_lost=some(0.2, 0.5),
                    longest=2.0,
                    late=some(0.5, 0.8),
                    kills=few(0.2),
                    halts=few(0.3),
                )
            case "servers":
                return SessionFaults(
                    until,
                    slow=some(0.4, 0.4),
                    kills=few(0.6),
                    stops=few(0.2),
                    halts=few(0.4),
                    restarts=few(0.3),
                    wipes=few(0.2),
                    absences=few(0.2),
                )
        return SessionFaults(
            until,
            slow=some(0.3, 0.3),
            lost=some(0.3, 0.05),
            s3_lost=some(0.3, 0.2),
            others_lost=some(0.2, 0.5),
            late=some(0.5, 0.8),
            impatience=some(0.3, 0.5),
            cuts=some(0.3, 0.2),
            kills=few(0.25),
            stops=few(0.1),
            halts=few(0.25),
            restarts=few(0.15),
            wipes=few(0.1),
            absences=few(0.1),
            doubles=some(0.2, 0.5),
            busy=some(0.1, 0.8),
            turns=0.3,
        )

    def _drawn_limits(self) -> dict[str, Any]:
        draw = self._random.random
        limits: dict[str, Any] = {}
        if draw() < 0.15:
            limits["session_max_open"] = self._random.choice((1, 1, 2))
        if draw() < 0.15:
            limits["session_tenant_max_open"] = 1
        if draw() < 0.05:
            limits["session_retention_hours"] = 10.0 / 3600
        if draw() < 0.1:
            limits["session_max_worked_on"] = 1
        return limits

    def _drawn_wishes(self) -> Wishes:
        draw, choice = self._random.random, self._random.choice
        files = draw() < 0.2 and not self._long
        count = choice((0, 1, 2, 3, 5, 8))
        pieces = [self._drawn_piece(n, 1, files=files) for n in range(count)]
        manners = self._drawn_manners(count)
        turns = draw() < self.faults.turns
        first = choice((0, count // 2, count))
        return Wishes(
            choice(TENANTS),
            self._drawn_config(files=files),
            pieces,
            manners,
            next_pieces=[
                self._drawn_piece(first + n, 2, files=files) for n in range(choice((1, 3)))
            ],
            next_manners=self._drawn_manners(count) if turns else None,
            next_after=1.5 * draw() ** 2,
            asked_at_once=1 + (draw() < 0.25),
            reuses=draw() < 0.05,
            watchers=choice((0, 1, 1, 2)),
            cuts=self._some(0.3, 0.4),
            reads=choice((0, 0, 1, 3)),
            closes=None if (fate := draw()) < 0.1 else 2.0 * draw() if fate < 0.3 else 0.0,
            deletes=None if (fate := draw()) < 0.8 else 2.5 * draw() if fate < 0.95 else 0.0,
        )

    def _drawn_config(self, *, files: bool) -> pb.SessionConfig:
        draw = self._random.random
        config = pb.SessionConfig(
            encoding=pb.AUDIO_ENCODING_CONTAINER if files else pb.AUDIO_ENCODING_LINEAR16,
            sample_rate_hertz=0 if files else HERTZ,
            chunk_form=pb.CHUNK_FORM_FILES if files else pb.CHUNK_FORM_UNSPECIFIED,
            live_results=draw() < 0.4,
            interim_results=draw() < 0.5,
            final_job=draw() < 0.6,
            recording_format=(pb.RECORDING_FORMAT_W64 if draw() < 0.2 else pb.RECORDING_FORMAT_WAV),
        )
        config.gap_timeout.FromTimedelta(timedelta(seconds=self._random.choice((0, 0.5, 2))))
        config.idle_timeout.FromTimedelta(timedelta(seconds=self._random.choice((2, 5))))
        config.max_duration.FromTimedelta(timedelta(seconds=1 if self._long else 10))
        if draw() < 0.1:
            config.final_job_config.model = NO_SUCH_MODEL
        return config

    def _drawn_piece(self, sequence: int, producer: int, *, files: bool) -> Piece:
        frames = self._random.choice((1, 4, 7, 12, 20)) * (150 if self._long else 1)
        samples = bytes((sequence + 1, producer)) * frames
        if not files:
            return Piece(sequence, samples)
        return Piece(sequence, (UNDECODABLE if self._random.random() < 0.1 else b"F") + samples)

    def _drawn_manners(self, count: int) -> Manners:
        draw, choice = self._random.random, self._random.choice

        def some(probability: float) -> frozenset[int]:
            return frozenset(n for n in range(count) if draw() < probability)

        return Manners(
            streams=draw() < 0.6,
            at_once=choice((1, 2, 4)),
            absent=some(choice((0.0, 0.0, 0.2))),
            late=some(choice((0.0, 0.0, 0.3))),
            repeats=self._some(0.3, 0.6),
            forges=self._some(0.3, 0.6),
            cuts=self.faults.cuts,
            ghosts=self._some(0.5, 0.8) if self.faults.cuts else 0.0,
            pause=choice((0.0, 0.1, 0.5)),
            gives_up=2.0 * draw() if draw() < 0.1 else None,
            insists=draw() < 0.3,
            sums=draw() < 0.5,
        )

    # What happens

    async def _run(self, late: list[str]) -> None:
        for _ in range(2 if self.mix == "leases" else self._random.choice((1, 2, 2))):
            self._start_replica()
        if self.mix == "leases":
            await asyncio.sleep(LEASE)  # from then on each misses the other
        for number in range(1 + (self._random.random() < (0.6 if self._limits else 0.4))):
            caller = SessionCaller(
                f"client {number}", self.loop, self.calls, self.replicas, self.history
            )
            self.clients.append(Client(caller, self.bucket, self._drawn_wishes()))
        faults = self.faults
        acts = [self._kill] * faults.kills + [self._stop] * faults.stops
        acts += [self._halt_one] * faults.halts
        wrong = self.loop.create_task(self._go_wrong(acts))
        if self.mix == "leases":
            halting = self.loop.create_task(self._halt_at_work())
        late += await self._late([client.run() for client in self.clients])
        await wrong
        if self.mix == "leases":
            halting.cancel()
        await self._until_settled(late)

    async def _late(self, doing: Sequence[Coroutine[Any, Any, None]]) -> list[str]:
        """Has clients do something; returns the names of those that come to no end."""
        tasks = [
            self.loop.create_task(each, name=f"client {number}")
            for number, each in enumerate(doing)
        ]
        done, pending = await asyncio.wait(tasks, timeout=self.faults.until + PATIENCE)
        self._raise_what_nobody_was_told(done)
        return [task.get_name() for task in pending]

    async def _until_settled(self, late: list[str]) -> None:
        """Waits until sessions are finished, and then until what is to be removed is gone."""
        tables = self.database.tables
        deadline = self.loop.time() + PATIENCE
        while not all(each["finished"] for each in tables["sessions"].values()) or not all(
            each["published"] for each in tables["events"].values()
        ):
            if self.loop.time() > deadline:
                late.append("a session, or the relay,")
                return
            await asyncio.sleep(0.5)
        if not self._tidies:
            return
        # Who works on what is not his any more has noticed it then.
        await asyncio.sleep(LEASE)
        for replica in self.replicas:
            replica.process.kill()
        self.replicas[:] = [self._new_replica(only=("remove", "trim"))]
        late += await self._late([client.come_back(1.5 * HOUR) for client in self.clients])
        deadline = self.loop.time() + 2 * PATIENCE
        while tables["removals"] or not all(
            each["trimmed"] for each in tables["sessions"].values()
        ):
            if self.loop.time() > deadline:
                late.append("a removal")
                return
            await asyncio.sleep(1.0)

    def _begin_faults(self) -> None:
        super()._begin_faults()
        faults = self.faults
        self._to_s3.lost, self._to_others.lost = faults.s3_lost, faults.others_lost
        self._to_s3.longest = self._to_others.longest = faults.longest
        self.bucket.late = faults.late
        self.neighbours.busy = faults.busy

    def _heal(self) -> None:
        super()._heal()
        self.bucket.away = False
        self.neighbours.busy = 0.0

    def _kill(self) -> None:
        self._kill_replica(int(self._random.random() * len(self.replicas)))

    def _stop(self) -> None:
        """A replica ends when another is there."""
        place = int(self._random.random() * len(self.replicas))
        replica = self.replicas[place]
        if replica.process.runs:
            self._say(f"{replica.process.name} is told to stop")
            self._replace_replica(place)
            self.loop.create_task(replica.stop(), context=replica.process.context.copy())

    def _halt_one(self) -> None:
        """A replica stands still for a while: less than a lease, or more."""
        process = self._random.choice(self.replicas).process
        if process.runs:
            self._halt(process, LONGEST_HALT * self._random.random())

    async def _halt_at_work(self) -> None:
        """A replica stands still, for longer than a lease, in the midst of work on a session."""
        at_end = self._random.random() < 0.7
        while not (working := self._at_work(at_end=at_end)):  # noqa: ASYNC110 (nothing tells us)
            await asyncio.sleep(0.05)
        await asyncio.sleep((0.5 if at_end else 2.0) * self._random.random() ** 2)
        if working.runs:
            self._halt(working, LEASE + (LONGEST_HALT - LEASE) * self._random.random())

    def _at_work(self, *, at_end: bool) -> Process | None:
        """Who has leased a session last, if that is not finished; with `at_end`, once it ends."""
        processes = {each.process.name: each.process for each in self.replicas}
        for commit in reversed(self.database.log):
            for (table, key), (old, new) in commit.rows.items():
                if table == "sessions" and old and new and new["attempt"] > old["attempt"]:
                    session = self.database.tables["sessions"].get(key)
                    if session is None or session["lease_until"] is None:
                        return None
                    if at_end and session["state"] == "OPEN":
                        return None
                    return processes.get(commit.client)
        return None

    def _be_away(self) -> None:
        if self._random.random() < 0.5:
            super()._be_away()
        else:
            self._say("S3 is away")
            self.bucket.away = True

    def _new_replica(self, only: Sequence[str] = ()) -> Replica:
        self._names += 1
        name = f"concatenation {self._names}"
        replica = Replica(
            name,
            self.loop,
            self.database,
            self.bus,
            self.bucket,
            self.neighbours,
            connections=self._connections,
            limits=self._limits,
        )
        replica.start(only)
        self.started[name] = self.loop.time()
        return replica


def _replaced(loop: Loop, *, long: bool) -> list[AbstractContextManager[Any]]:
    """The service has the clock and the ids of a loop, and what is large, or lasts, is small.

    Recordings that become as long as they may have few parts.
    """

    def hours() -> Any:
        return BEGINNING + timedelta(hours=loop.time() / HOUR)

    replace, hour = mock.patch.object, timedelta(seconds=HOUR)
    return [
        replace(outage.OutageGuard.__init__, "__defaults__", (loop.time,)),
        replace(sessions, "datetime", clock_of(lambda: loop.now)),
        replace(recording, "datetime", clock_of(hours)),
        replace(recording, "_SNAPSHOTS_TOGETHER", hour),
        replace(recording, "PART_BYTES", PART_BYTES),
        replace(recording, "MOST_PARTS", 10 if long else recording.MOST_PARTS),
        replace(store, "uuid4", ids_of(loop)),
        replace(ingest, "uuid4", ids_of(loop)),
        replace(removals, "SECOND_REMOVAL_AFTER", hour),
        replace(store, "LEAST_GRACE", hour),
        replace(domain, "WINDOW_CHUNKS", 5),
        replace(decode, "decode", decoded),
        replace(worker, "LiveTranscript", LiveTranscript),
    ]
