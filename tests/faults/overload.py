"""`python -m faults.overload`: ten times what the machine can do; exit status 1 if it is not borne.

    calm      live sessions alone: how soon chunks are acknowledged when there is nothing else
    peak      as many jobs are kept waiting as keep all workers busy: what the machine can do
    overload  ten times as many are asked for, whatever is answered
    the end   nothing more is asked for, and all that was accepted ends

Clients come when they come, as in life: none waits for the answer of another. The product is as it
comes; only the model is the null engine, so that every transcript is known beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import grpc
import numpy as np
import psycopg

from faults.oracle import Sound, blocks_in, samples_of, wrong_in
from faults.speaker import samples_in
from faults.system import MODEL
from folders import server_folder
from platform_client import Client, fetched
from processes import memory_of
from recordings import RATE, Samples, wav
from recordings import samples_of as recorded
from running_platform import RunningPlatform, run_services
from steno.local.supervisor import Service, services
from steno.platform.errors import Failure, read_failure
from steno.platform.wellknown import duration_of, seconds_of
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2, upload_pb2
from waiting import eventually

TIMES = 10
"""How many times what the machine can do is asked for."""
SPEED = 15
"""Seconds of audio that a worker's null engine does in a second: workers are the bottleneck."""
WORKERS = 2
SOUND_SECONDS = 2
SOUNDS = 20
"""Recordings that jobs are made of."""
NEW = 0.1
"""Share of jobs for which a new recording is sent up."""
SPEAKERS = 3
CHUNK_SECONDS = 0.2
CHUNK_SAMPLES = round(CHUNK_SECONDS * RATE)
ENOUGH_WAITING = 100
"""Jobs that wait while the peak is measured."""
PATIENCE_SECONDS = 10.0
"""Of a caller."""
MOST_CALLERS = 3000
"""At once. Who comes then is counted as not sent, and the run does not count if there are any."""

LEAST_GOODPUT = 0.9
"""Of the peak, under overload."""
SOON_SECONDS = 1.0
"""99 of 100 refusals come so soon. What the machine does meanwhile is in it: it is busy."""
FLAT = 1.2
"""Most memory of the second half of the overload, by that of the first."""
FAIR = 2
"""Most that live results are behind, by what they are when there is nothing else (the median)."""
READ = 100
"""Transcripts that are compared with what the null engine says, of those that were accepted."""


@dataclass
class Told:
    """What clients were told under overload."""

    accepted: dict[str, tuple[Sound, str]] = field(default_factory=dict)
    """What a job must hear, and its options, by the job's id."""
    refused: list[tuple[Failure, float]] = field(default_factory=list)
    """With the seconds that it took."""
    failed: Counter[str] = field(default_factory=Counter)
    """Whatever else was answered."""
    not_sent: int = 0

    @property
    def offered(self) -> int:
        return len(self.accepted) + len(self.refused) + self.failed.total() + self.not_sent


class Customers:
    """Those who ask for jobs."""

    def __init__(self, client: Client, dice: random.Random) -> None:
        self._client = client
        self._dice = dice
        self._files = 0
        self._ready: list[tuple[str, Sound]] = []

    async def prepare(self) -> None:
        """Sends the recordings that most jobs are made of."""
        for _ in range(SOUNDS):
            sound = self.new_sound()
            self._ready.append((await self._send(sound), sound))

    def new_sound(self) -> Sound:
        self._files += 1
        return Sound(self._files % 30_000 + 1, blocks_in(SOUND_SECONDS))

    async def ask(self, told: Told) -> None:
        """Asks for a job once, as a client that has something to transcribe."""
        begun = time.monotonic()
        try:
            if self._dice.random() < NEW:
                sound = self.new_sound()
                audio_id = await self._send(sound)
            else:
                audio_id, sound = self._dice.choice(self._ready)
            prompt = f"p{self._dice.getrandbits(32):x}"
            request = job_pb2.CreateJobRequest(
                audio_id=audio_id,
                config=transcript_pb2.RecognitionConfig(
                    model=MODEL, language_code="en", prompt=prompt
                ),
                request_id=str(uuid.uuid4()),
            )
            answer = await self._client.jobs.CreateJob(request, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            failure = read_failure(error)
            if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                told.refused.append((failure, time.monotonic() - begun))
            else:
                told.failed[f"{failure.code.name} {failure.reason}"] += 1
        else:
            told.accepted[answer.job.job_id] = sound, prompt

    async def _send(self, sound: Sound) -> str:
        data = wav(samples_of(sound.file, 0, sound.blocks))

        async def messages() -> AsyncIterator[upload_pb2.UploadAudioRequest]:
            header = upload_pb2.UploadAudioHeader(filename=f"{sound.file}.wav")
            yield upload_pb2.UploadAudioRequest(header=header)
            yield upload_pb2.UploadAudioRequest(chunk=data)

        sending = self._client.uploads.UploadAudio(messages(), timeout=PATIENCE_SECONDS)
        return str((await sending).audio.audio_id)


@dataclass
class Phase:
    """What was measured while it lasted."""

    acknowledged: list[float] = field(default_factory=list)
    """Seconds from a chunk to its acknowledgement."""
    lags: list[float] = field(default_factory=list)
    """Seconds of sound that a live result was behind."""


class Speaker:
    """Speaks into a live session for as long as the run takes, as fast as it sounds."""

    def __init__(self, client: Client, speech: Samples) -> None:
        self._client = client
        self._speech = speech
        self.phase = Phase()
        self.stopping = asyncio.Event()
        self._sent_at: dict[int, float] = {}

    async def speak(self) -> str:
        """Returns what is wrong with the recording, or an empty text."""
        config = concatenation_pb2.SessionConfig(
            encoding=concatenation_pb2.AUDIO_ENCODING_LINEAR16,
            sample_rate_hertz=16_000,
            # They hear half a minute again and again: three speakers alone would be an overload.
            interim_results=False,
            idle_timeout=duration_of(3600),
            final_job=False,
        )
        sessions = self._client.sessions
        request = concatenation_pb2.CreateSessionRequest(config=config)
        session_id = (await sessions.CreateSession(request)).session.session_id
        call = sessions.StreamAudio(self._messages(session_id))
        try:
            async for response in call:
                now = time.monotonic()
                for sequence in response.ack.sequences:
                    self.phase.acknowledged.append(now - self._sent_at.pop(sequence))
                if response.HasField("result"):
                    self.phase.lags.append(seconds_of(response.result.lag))
        except grpc.aio.AioRpcError as error:
            return f"the stream ended with {read_failure(error)}"
        close = concatenation_pb2.CloseSessionRequest(session_id=session_id)
        await sessions.CloseSession(close, timeout=60)
        form = concatenation_pb2.RECORDING_FORM_FILE
        ask = concatenation_pb2.GetRecordingRequest(session_id=session_id, form=form)
        url = (await sessions.GetRecording(ask, timeout=60)).url
        heard = samples_in(await fetched(url))
        same = np.array_equal(heard, np.resize(self._speech, self._sent * CHUNK_SAMPLES))
        return "" if same else "the recording is not what was sent"

    _sent = 0

    async def _messages(
        self, session_id: str
    ) -> AsyncIterator[concatenation_pb2.StreamAudioRequest]:
        start = concatenation_pb2.StreamAudioStart(session_id=session_id)
        yield concatenation_pb2.StreamAudioRequest(start=start)
        due = time.monotonic()
        while not self.stopping.is_set():
            places = range(self._sent * CHUNK_SAMPLES, (self._sent + 1) * CHUNK_SAMPLES)
            content = self._speech.take(places, mode="wrap").tobytes()
            chunk = concatenation_pb2.Chunk(sequence=self._sent, content=content)
            self._sent_at[self._sent] = time.monotonic()
            self._sent += 1
            yield concatenation_pb2.StreamAudioRequest(chunk=chunk)
            due += CHUNK_SECONDS
            await asyncio.sleep(max(0, due - time.monotonic()))


class Overload:
    """A run: its phases, and what came of them."""

    def __init__(self, running: RunningPlatform, minutes: float, seed: int) -> None:
        self._running = running
        self._seconds = minutes * 60
        self._dice = random.Random(seed)
        self._customers = Customers(running.client, self._dice)
        self._told = Told()
        self._memory: list[dict[str, int]] = []
        self.rows: list[tuple[str, str]] = []
        self.broken: list[str] = []

    async def run(self) -> None:
        """All phases. Afterwards `rows` has the figures, and `broken` what was not borne."""
        await self._customers.prepare()
        speech = recorded("demo.opus")
        speakers = [Speaker(self._running.client, speech) for _ in range(SPEAKERS)]
        speaking = [asyncio.create_task(speaker.speak()) for speaker in speakers]
        short = min(60.0, self._seconds / 2)
        try:
            calm = self._listen(speakers)
            await asyncio.sleep(short / 2)
            peak = await self._peak(short)
            loud = self._listen(speakers)
            goodput = await self._overload(peak)
        finally:
            for speaker in speakers:
                speaker.stopping.set()
            spoken = await asyncio.gather(*speaking)
        drained = await self._end(peak)
        self._judge_jobs(peak, goodput, drained)
        self._judge_memory()
        self._judge_speakers(calm, loud)
        self.broken += [f"live session: {wrong}" for wrong in spoken if wrong]
        await self._judge_transcripts()

    def _listen(self, speakers: Sequence[Speaker]) -> Phase:
        """What speakers measure from now on."""
        phase = Phase()
        for speaker in speakers:
            speaker.phase = phase
        return phase

    async def _peak(self, seconds: float) -> float:
        """Jobs that end in a second while enough wait."""
        told = Told()

        async def top_up() -> None:
            while True:
                missing = ENOUGH_WAITING - await self._count(_UNFINISHED)
                await asyncio.gather(*(self._customers.ask(told) for _ in range(missing)))
                await asyncio.sleep(0.2)

        topping_up = asyncio.create_task(top_up())
        await asyncio.sleep(seconds / 4)
        peak = await self._goodput(seconds)
        topping_up.cancel()
        await asyncio.gather(topping_up, return_exceptions=True)
        self._told.accepted |= told.accepted
        self._say(f"peak: {peak:.1f} jobs a second")
        return peak

    async def _overload(self, peak: float) -> float:
        """Jobs that ended in a second while ten times as many were asked for."""
        asking: set[asyncio.Task[None]] = set()
        end = time.monotonic() + self._seconds

        async def come() -> None:
            due = time.monotonic()
            while due < end:
                due += self._dice.expovariate(TIMES * peak)
                await asyncio.sleep(max(0, due - time.monotonic()))
                if len(asking) >= MOST_CALLERS:
                    self._told.not_sent += 1
                    continue
                task = asyncio.create_task(self._customers.ask(self._told))
                asking.add(task)
                task.add_done_callback(asking.discard)

        coming = asyncio.create_task(come())
        weighing = asyncio.create_task(self._weigh())
        goodput = await self._goodput(self._seconds)
        await coming
        await asyncio.gather(*asking)
        weighing.cancel()
        await asyncio.gather(weighing, return_exceptions=True)
        self._say(f"overload: {goodput:.1f} jobs a second; {self._told.offered} were asked for")
        return goodput

    async def _weigh(self) -> None:
        while True:
            pids = {name: self._running.pid(name) for name in self._running.platform.children}
            self._memory.append({name: memory_of(pid) for name, pid in pids.items()})
            await asyncio.sleep(2)

    async def _end(self, peak: float) -> float:
        """Seconds until all that was accepted had ended."""
        begun = time.monotonic()
        within = 2 * len(self._told.accepted) / peak + 120

        async def nothing() -> bool:
            return not await self._count(_UNFINISHED)

        try:
            await eventually(nothing, within=within, every=0.5)
        except AssertionError:
            self.broken.append(f"{await self._count(_UNFINISHED)} jobs have not ended")
        return time.monotonic() - begun

    async def _goodput(self, seconds: float) -> float:
        before, begun = await self._count(_SUCCEEDED), time.monotonic()
        await asyncio.sleep(seconds)
        return (await self._count(_SUCCEEDED) - before) / (time.monotonic() - begun)

    async def _count(self, statement: LiteralString, *values: object) -> int:
        url = self._running.platform.servers.postgres.url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
            row = await (await db.execute(statement, values)).fetchone()
        assert row
        return int(row[0])

    def _judge_jobs(self, peak: float, goodput: float, drained: float) -> None:
        told = self._told
        self.rows += [
            ("peak: jobs done in a second", f"{peak:.1f}"),
            ("overload: jobs asked for in a second", f"{told.offered / self._seconds:.0f}"),
            (
                "overload: jobs done in a second",
                f"{goodput:.1f} ({goodput / peak:.0%} of the peak)",
            ),
            ("accepted", f"{len(told.accepted)}"),
            ("refused", f"{len(told.refused)}: {_reasons(told.refused)}"),
            ("answered otherwise", f"{dict(told.failed) or 0}"),
            ("a refusal took (median, 99 of 100)", _times([took for _, took in told.refused])),
            ("until all that was accepted had ended", f"{drained:.0f} s"),
        ]
        if goodput < LEAST_GOODPUT * peak:
            self.broken.append(f"goodput is {goodput / peak:.0%} of the peak")
        if told.failed:
            self.broken.append(f"neither accepted nor refused: {dict(told.failed)}")
        if told.not_sent:
            self.broken.append(f"{told.not_sent} callers found {MOST_CALLERS} before them")
        if not told.refused:
            self.broken.append("nothing was refused: this was no overload")
        elif _nth([took for _, took in told.refused], 0.99) > SOON_SECONDS:
            self.broken.append("refusals take long")
        if silent := sum(failure.retry_delay is None for failure, _ in told.refused):
            self.broken.append(f"{silent} refusals do not say when to try again")

    def _judge_memory(self) -> None:
        half = len(self._memory) // 2
        for name in self._memory[0]:
            first, second = (
                max(each[name] for each in part)
                for part in (self._memory[:half], self._memory[half:])
            )
            self.rows.append((f"memory of {name}", f"{first >> 20}, then {second >> 20} MiB"))
            if second > FLAT * first:
                self.broken.append(f"memory of {name} grows")

    def _judge_speakers(self, calm: Phase, loud: Phase) -> None:
        for name, phase in (("calm", calm), ("overload", loud)):
            self.rows += [
                (f"{name}: a chunk was acknowledged after", _times(phase.acknowledged)),
                (f"{name}: a live result was behind by", _times(phase.lags)),
            ]
        if _nth(loud.acknowledged, 0.99) > SOON_SECONDS:
            self.broken.append("chunks of live sessions are acknowledged late")
        if not loud.lags or _nth(loud.lags, 0.5) > FAIR * _nth(calm.lags, 0.5):
            self.broken.append("live results come later than without batch work")

    async def _judge_transcripts(self) -> None:
        jobs = self._running.client.jobs
        some = self._dice.sample(sorted(self._told.accepted), min(READ, len(self._told.accepted)))
        for job_id in some:
            sound, prompt = self._told.accepted[job_id]
            try:
                answer = await jobs.GetTranscript(job_pb2.GetTranscriptRequest(job_id=job_id))
            except grpc.aio.AioRpcError as error:
                self.broken.append(f"job {job_id}: {read_failure(error)}")
                continue
            text = "".join(segment.text for segment in answer.transcript.segments)
            if problem := wrong_in(text, sound.runs, prompt):
                self.broken.append(f"job {job_id}: {problem}")
        accepted = list(self._told.accepted)
        lost = len(accepted) - await self._count(_SUCCEEDED_OF, accepted)
        self.rows.append(("accepted jobs without a result", f"{lost}"))
        if lost:
            self.broken.append(f"{lost} accepted jobs have no result")

    def _say(self, line: str) -> None:
        print(f"  {line}", flush=True)


_UNFINISHED: LiteralString = "SELECT count(*) FROM job.jobs WHERE state IN ('QUEUED', 'RUNNING')"
_SUCCEEDED: LiteralString = "SELECT count(*) FROM job.jobs WHERE state = 'SUCCEEDED'"
_SUCCEEDED_OF: LiteralString = _SUCCEEDED + " AND job_id = ANY (%s::uuid[])"


def _reasons(refused: Sequence[tuple[Failure, float]]) -> str:
    counts = Counter(failure.reason for failure, _ in refused)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _nth(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def _times(values: Sequence[float]) -> str:
    """The median, and what 99 of 100 are below."""
    if not values:
        return "none"
    return f"{_nth(values, 0.5):.2f} s, {_nth(values, 0.99):.2f} s"


@asynccontextmanager
async def platform(**settings: str) -> AsyncIterator[RunningPlatform]:
    """The product as it comes, with null engines."""
    null = {"PYTHONPATH": str(Path(__file__).parent.parent), "STENO_FAULTS_SPEED": str(SPEED)}
    wanted = [
        Service(
            each.name,
            each.module.replace("steno.transcription", "faults.null_worker"),
            serves=each.serves,
            environment=each.environment | null,
        )
        for each in services([MODEL], WORKERS)
    ]
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(server_folder())
        yield await run_services(stack, wanted, folder, **settings)


async def run(minutes: float, seed: int, **settings: str) -> Overload:
    """Runs all of it; the platform is gone afterwards."""
    async with platform(**settings) as running:
        overload = Overload(running, minutes, seed)
        await overload.run()
    return overload


def main() -> None:
    """Prints the figures as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m faults.overload", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of overload")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        overload = asyncio.run(run(arguments.minutes, arguments.seed))
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started has ended")
    print("\n| what | measured |\n| --- | --- |")
    for row in overload.rows:
        print("| {} | {} |".format(*row))
    for line in overload.broken:
        print(f"not borne: {line}")
    sys.exit(bool(overload.broken))


if __name__ == "__main__":
    main()
