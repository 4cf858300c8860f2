"""One seed: system, load and nemesis for a while, then healing, quiet, and the checker."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import psycopg

from faults.calls import GivenUp, Refused
from faults.catalogue import FAULTS
from faults.crashing import Crashes
from faults.fault import Strike
from faults.history import History
from faults.load import Load
from faults.nemesis import Nemesis
from faults.oracle import Sound, blocks_in
from faults.promises import Final, Finding, Record, findings
from faults.speaker import Speaker
from faults.standby import Standby, standing_by
from faults.system import Shape, System, run_system
from faults.uploader import Uploader
from steno.platform.objects import ObjectNotFound, open_store
from waiting import eventually

MOVES_SECONDS = 60.0
"""After the last fault, what is asked anew is done within this time."""
BACKLOG_SECONDS = 420.0
"""After the last fault, all that was accepted has ended: above the longest pause of a try."""
OBSERVERS = 8


@dataclass
class Outcome:
    """What came of a trial."""

    seed: int
    history: History
    strikes: list[Strike]
    found: list[Finding]
    moves_seconds: float = 0.0
    """From the last fault until a new job and a new session were done."""
    backlog_seconds: float = 0.0
    """From the last fault until nothing that was accepted waited any more."""
    jobs: int = 0
    chunks: int = 0
    wall_seconds: float = 0.0


@dataclass
class Trial:
    """How one seed is tried.

    Attributes:
        seed: from which all follows that the harness decides; what the machine decides does not.
        seconds: how long it is harmed.
        shape: of the system.
        faults: names of those that are drawn; none for a control.
        uploaders: clients that send files.
        speakers: clients that are recorded live.
        keep: folder for the history, and for the platform's logs.
        halts: whether, after the last fault, all but one process of each kind are halted for good:
            what they held must be taken up by the one that is left.
        fails_over: whether Postgres dies for good after the last fault, and a standby takes over.
        say: told of progress.
    """

    seed: int
    seconds: float
    shape: Shape
    faults: Sequence[str] = tuple(FAULTS)
    uploaders: int = 6
    speakers: int = 3
    keep: Path | None = None
    halts: bool = False
    fails_over: bool = False
    say: Callable[[str], None] = field(default=lambda line: None)

    @property
    def _steps_clocks(self) -> bool:
        """Of the trials with all faults a quarter has this one."""
        quarter = random.Random(f"{self.seed} clocks").random() < 0.25
        return "step-clock" in self.faults and (quarter or len(self.faults) < len(FAULTS))

    async def run(self) -> Outcome:
        """Runs all of it. The system is gone afterwards, whatever happened."""
        begun = time.monotonic()
        if self.keep:
            self.keep.mkdir(parents=True, exist_ok=True)
        history = History(self.keep and self.keep / f"{self.seed}.jsonl")
        try:
            async with (
                run_system(self.shape, clocks_of_their_own=self._steps_clocks) as system,
                AsyncExitStack() as stack,
            ):
                standby = None
                if self.fails_over:
                    standby = await stack.enter_async_context(standing_by(system))
                try:
                    outcome = await self._on(system, history, standby)
                finally:
                    if self.keep:
                        logs = system.running.platform.logs
                        shutil.copytree(logs, self.keep / f"{self.seed}", dirs_exist_ok=True)
        finally:
            history.close()
        outcome.wall_seconds = time.monotonic() - begun
        return outcome

    async def _on(self, system: System, history: History, standby: Standby | None) -> Outcome:
        with Load(system, history, self.seed) as load:
            return await self._with(load, standby)

    async def _with(self, load: Load, standby: Standby | None) -> Outcome:
        system, history = load.system, load.history
        nemesis = Nemesis(system, load, self.seed, self.faults, self.say)
        working = asyncio.create_task(load.run(self.uploaders, self.speakers))
        crashes = self.shape.crashes and Crashes(self.shape.crashes)
        try:
            if crashes:
                crashes.arm()
            await self._harm(nemesis, working)
            if crashes:
                crashes.disarm()
            if standby:
                await standby.take_over()
                self.say("the standby has taken over")
            healed = time.monotonic()
            self.say("healed")
            if self.halts:
                halted = await system.halt_all_but_one(random.Random(f"{self.seed} halted"))
                self.say(f"halted for good: {', '.join(halted)}")
            load.deadline = healed + MOVES_SECONDS
            load.stopping.set()
            outcome = Outcome(self.seed, history, nemesis.strikes, [])
            outcome.moves_seconds = await self._moves(load, healed)
            self.say(f"moves again after {outcome.moves_seconds:.1f} s")
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        load.deadline = time.monotonic() + BACKLOG_SECONDS
        await self._close_sessions(load)
        left = await _backlog(system, healed + BACKLOG_SECONDS)
        outcome.backlog_seconds = time.monotonic() - healed
        self.say(f"nothing waits after {outcome.backlog_seconds:.1f} s")
        await self._observe(load)
        final = await _final(system, left)
        outcome.found = findings(history, final)
        if outcome.moves_seconds > MOVES_SECONDS:
            sentence = f"it took {outcome.moves_seconds:.0f} s after the last fault"
            outcome.found.append(Finding("everything_moves_again", "other", sentence))
        record = Record(history)
        outcome.jobs = len(record.jobs)
        outcome.chunks = sum(len(session.acked) for session in record.sessions.values())
        return outcome

    async def _harm(self, nemesis: Nemesis, working: asyncio.Task[None]) -> None:
        stopping = asyncio.Event()
        harming = asyncio.create_task(nemesis.run(stopping) if self.faults else stopping.wait())
        try:
            done, _ = await asyncio.wait(
                {working, harming}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:  # neither ends by itself
                task.result()
            stopping.set()
            await harming
        finally:
            harming.cancel()
            await asyncio.gather(harming, return_exceptions=True)

    async def _moves(self, load: Load, healed: float) -> float:
        """Until a new file and a new session are through, in seconds; tried as long as it takes."""
        load.deadline = time.monotonic() + BACKLOG_SECONDS
        probe = Uploader(load, "probe-uploader")
        probe.hasty = 0
        sound = Sound(load.next_file(), blocks_in(2))

        async def file() -> None:
            audio_id = await probe.put_up(sound)
            for job_id in await probe.create_jobs(audio_id, sound, 1):
                await probe.poll(job_id)

        speaker = Speaker(load, "probe-speaker")
        speaker.hasty, speaker.untidy = 0, False
        with suppress(GivenUp, Refused):
            await asyncio.gather(file(), speaker.speak(load.next_file()))
        return time.monotonic() - healed

    async def _close_sessions(self, load: Load) -> None:
        """What clients have left open is closed: it must become an audio too."""
        sessions = Record(load.history).sessions.values()
        left = [session.session_id for session in sessions if session.sent and not session.closed]
        await _side_by_side(load, "closer", left, Speaker.close)

    async def _observe(self, load: Load) -> None:
        """Reads everything once more, on every replica."""
        record = Record(load.history)
        load.deadline = time.monotonic() + MOVES_SECONDS

        async def session(client: Speaker, session_id: str) -> None:
            if record.sessions[session_id].acked:
                await client.finished(session_id)
                await client.read_recording(session_id)
            if record.sessions[session_id].live:
                await client.watch_session(session_id)

        async def job(client: Speaker, job_id: str) -> None:
            state = await client.poll(job_id)
            if state == "SUCCEEDED":
                await client.read_transcript(job_id)
            for service in load.system.jobs:
                await client.watch_once(service, job_id, 0, 10)

        gone = {operation.asked["id"] for operation in load.history.of("delete_audio", told="ok")}
        await _side_by_side(load, "observer", gone, Speaker.look_for_audio)
        await _side_by_side(load, "observer", record.sessions, session)
        record = Record(load.history)
        await _side_by_side(load, "observer", record.jobs, job)


async def _side_by_side(
    load: Load, name: str, things: Iterable[str], do: Callable[[Speaker, str], Awaitable[object]]
) -> None:
    """A few clients, which share things to do."""
    left = list(things)

    async def work(client: Speaker) -> None:
        while left:
            with suppress(GivenUp, Refused):
                await do(client, left.pop())

    clients = [Speaker(load, f"{name}-{number}") for number in range(OBSERVERS)]
    for client in clients:
        client.hasty = 0
    await asyncio.gather(*(work(client) for client in clients))


async def _backlog(system: System, deadline: float) -> list[str]:
    """Waits until nothing waits; returns what still does at the deadline."""

    async def left() -> list[str]:
        try:
            return [f"{row['what']} {row['id']}" for row in await system.rows(_UNFINISHED)]
        except psycopg.OperationalError as error:
            return [repr(error)]

    async def nothing() -> bool:
        return not await left()

    with suppress(AssertionError):
        await eventually(nothing, within=max(0, deadline - time.monotonic()), every=0.5)
    return await left()


_UNFINISHED: LiteralString = """
SELECT 'job' AS what, job_id::text AS id FROM job.jobs WHERE state IN ('QUEUED', 'RUNNING')
UNION ALL
SELECT 'audio', audio_id::text FROM upload.audio WHERE state = 'PREPARING'
UNION ALL
SELECT 'session', session_id::text FROM concatenation.sessions WHERE NOT finished AND
    (state <> 'OPEN' OR next_sequence > 0)
"""

_NAMED: LiteralString = """
SELECT object_key AS key FROM upload.audio WHERE state <> 'REJECTED'
UNION SELECT object_key FROM upload.slices
UNION SELECT context_object_key FROM upload.slices WHERE context_object_key <> ''
UNION SELECT object_key FROM concatenation.chunks
UNION SELECT object_key FROM concatenation.pieces WHERE object_key IS NOT NULL
UNION SELECT object_key FROM concatenation.parts
"""

_OWNED: LiteralString = """
SELECT object_key AS prefix FROM upload.removals
UNION SELECT object_prefix FROM concatenation.removals
UNION SELECT object_key FROM upload.uploads WHERE state = 'OPEN'
UNION SELECT 'sessions/' || session_id || '/' FROM concatenation.sessions
UNION SELECT 'recordings/' || session_id FROM concatenation.sessions WHERE audio_id IS NULL
UNION SELECT 'slices/' || audio_id || '/' FROM upload.audio WHERE state = 'PREPARING'
"""

_EFFECTS: LiteralString = """
SELECT 'job ' || (labels ->> 'request') AS request, array_agg(job_id::text) AS made
FROM job.jobs WHERE labels ? 'request' AND retry_of_job_id IS NULL GROUP BY 1
UNION ALL
SELECT 'retry of ' || retry_of_job_id, array_agg(job_id::text)
FROM job.jobs WHERE retry_of_job_id IS NOT NULL GROUP BY 1
UNION ALL
SELECT 'session ' || (labels ->> 'request'), array_agg(session_id::text)
FROM concatenation.sessions WHERE labels ? 'request' GROUP BY 1
UNION ALL
SELECT 'upload ' || filename, array_agg(upload_id::text) FROM upload.uploads GROUP BY 1
UNION ALL
SELECT 'audio ' || filename, array_agg(audio_id::text) FROM upload.audio GROUP BY 1
"""


async def _final(system: System, unfinished: list[str]) -> Final:
    keys = set(await system.running.object_keys("")) - {"ready"}  # the supervisor's own
    named = {row["key"] for row in await system.rows(_NAMED)}
    # While its disk is full SeaweedFS may fail to write down a folder, and forget that it did: what
    # is in it can be read, and is in no list.
    async with open_store(system.running.s3) as store:
        for key in named - keys:
            with suppress(ObjectNotFound):
                await store.get(key)
                keys.add(key)
    return Final(
        keys=keys,
        named=named,
        owned={row["prefix"] for row in await system.rows(_OWNED)},
        effects={row["request"]: row["made"] for row in await system.rows(_EFFECTS)},
        unfinished=unfinished,
    )
