"""The simulation's database does what Postgres does, with every statement of the store.

Random sequences of calls are made on both: what is answered, and what the tables hold then, is the
same but for ids and times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from unittest import mock
from uuid import UUID

import psycopg
import pytest

from simulation import job_statements
from simulation.conformance import (
    Call,
    Rows,
    Step,
    Transaction,
    a_server,
    beside,
    hold_against_postgres,
    meet_alike,
    simulated,
    told,
    waits,
)
from steno.job import domain, statements
from steno.job.domain import (
    Audio,
    AudioState,
    Failure,
    JobFilter,
    JobServiceError,
    JobState,
    NewJob,
    Priority,
    RequestId,
    RetryRules,
    Slice,
)
from steno.job.outbox import Outbox
from steno.job.store import Store
from steno.transcript import Options
from steno.v1 import job_pb2, transcript_pb2

HOUR = timedelta(hours=1)
AT_ONCE = timedelta(0)

STEPS = 80
LOOK_EVERY = 8
"""Calls between two looks at the tables."""
SLICE_SAMPLES = 160_000
MODELS = ("builtin", "large")
TENANTS = ("default", "other")
RULES = RetryRules(max_failures=2, longest_pause=HOUR)


def an_audio(number: int, first: int, last: int, state: str) -> Audio:
    slices = tuple(
        Slice(
            index=index,
            start_sample=index * SLICE_SAMPLES,
            sample_count=SLICE_SAMPLES,
            speech_sample_count=SLICE_SAMPLES,
            object_key=f"{number}/{index}",
        )
        for index in range(first, last)
    )
    return Audio(UUID(int=number), "talk.mp3", AudioState(state), False, slices, "R", "no audio")


def a_result(text: str) -> bytes:
    segment = transcript_pb2.Segment(text=text)
    segment.end_offset.FromSeconds(1)
    return transcript_pb2.SliceTranscript(segments=[segment]).SerializeToString()


@dataclass
class Side:
    """A store, and what jobs and tasks are called in a sequence of calls."""

    pool: Any
    rows: Rows
    now: Callable[[], datetime]
    jobs: list[UUID] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Leases that are over at once, or not for long.
        self.stores = {"short": Store(self.pool, AT_ONCE, RULES)}
        self.stores["long"] = Store(self.pool, HOUR, RULES)
        self.outbox = Outbox(self.pool)

    async def task(self, job: int, index: int) -> UUID:
        for row in await self.rows("tasks"):
            if (row["job_id"], row["slice_index"]) == (self.jobs[job], index):
                return row["task_id"]  # type: ignore[no-any-return]
        return UUID(int=0)

    async def make(self, call: Call) -> Any:
        """Makes a call, and answers what it comes to, in words that both sides share."""
        name, about = call
        names = self._names(await self.rows("tasks"))
        try:
            answer = await getattr(self, name)(**about)
        except JobServiceError as error:
            answer = (type(error).__name__, str(error))
        except psycopg.Error as error:
            answer = type(error).__name__
        return told(answer, names | self._names([]))

    def _names(self, tasks: Sequence[Mapping[str, Any]]) -> dict[UUID, str]:
        names = {job_id: f"job {number}" for number, job_id in enumerate(self.jobs)}
        for row in tasks:
            if row["job_id"] in names:
                names[row["task_id"]] = f"{names[row['job_id']]}, slice {row['slice_index']}"
        return names

    async def tables(self) -> Any:
        names = self._names(await self.rows("tasks"))
        found = {}
        for table in job_statements.TABLES:
            found[table] = sorted(told(_shown(row), names) for row in await self.rows(table))
        return found

    # The calls

    async def create(
        self,
        audio: Mapping[str, Any],
        request: int | None,
        body: str,
        retry_of: int | None,
        late: bool | None,
        **new: Any,
    ) -> Any:
        found = an_audio(**audio)
        deadline = {None: None, True: self.now() - HOUR, False: self.now() + HOUR}[late]
        wanted = NewJob(
            found.audio_id,
            retry_of_job_id=None if retry_of is None else self.jobs[retry_of],
            deadline=deadline,
            **new,
        )
        request_id = request and RequestId("t", "Create", UUID(int=request), body.encode())
        job = await self.stores["long"].create(wanted, found, request_id or None)
        if job.job_id not in self.jobs:
            self.jobs.append(job.job_id)
        return job

    async def find(self, request: int, body: str) -> Any:
        return await self.stores["long"].find(
            RequestId("t", "Create", UUID(int=request), body.encode())
        )

    async def audio_changed(self, job: int, audio: Mapping[str, Any] | None) -> Any:
        found = None if audio is None else an_audio(**audio)
        return await self.stores["long"].audio_changed(self.jobs[job], found)

    async def lease(self, job: int, index: int, store: str, worker: str, request: int) -> Any:
        task_id = await self.task(job, index)
        return await self.stores[store].lease(task_id, worker, UUID(int=request))

    async def renew(
        self, job: int, index: int, attempt: int, store: str, samples: int, language: str
    ) -> Any:
        task_id = await self.task(job, index)
        return await self.stores[store].renew(task_id, attempt, samples, language)

    async def complete(self, job: int, index: int, attempt: int, language: str) -> Any:
        task_id = await self.task(job, index)
        result = a_result(f"{index} at {attempt}")
        return await self.stores["long"].complete(task_id, attempt, language, result)

    async def fail(self, job: int, index: int, attempt: int, failure: str) -> Any:
        task_id = await self.task(job, index)
        return await self.stores["long"].fail(task_id, attempt, Failure(failure), "it failed")

    async def expire(self, job: int, index: int, attempt: int) -> Any:
        return await self.stores["long"].expire(await self.task(job, index), attempt)

    async def past_leases(self) -> Any:
        return await self.stores["long"].past_leases(100, [])

    async def cancel(self, job: int) -> Any:
        return await self.stores["long"].cancel(self.jobs[job])

    async def delete(self, job: int) -> Any:
        return await self.stores["long"].delete(self.jobs[job])

    async def delete_if_free(self, job: int) -> Any:
        return await self.stores["long"].delete(self.jobs[job], wait=False)

    async def join(self, job: int) -> Any:
        return await self.stores["long"].join(self.jobs[job])

    async def end_late(self, job: int) -> Any:
        late = await self.stores["long"].late(100, [])
        ended = self.jobs[job] in late and await self.stores["long"].end_late(self.jobs[job])
        return set(late), ended

    async def look(self, job: int) -> Any:
        """What says where a job stands, but for the time left: that is not simulated."""
        store, job_id = self.stores["long"], self.jobs[job]
        standing = await store.standing(job_id)
        joined = await store.joined(standing.job)
        return (
            (standing.job, standing.queue_position, standing.retried, joined.results),
            [_event(each) for each in await store.events_after(job_id, 1, 3)],
            [(at, _event(each)) for _, at, each in await store.events_from({job_id: 2}, 2)],
        )

    async def look_at_all(self, tenant: str) -> Any:
        store = self.stores["long"]
        everything = JobFilter(tenant=tenant)
        running = JobFilter(
            frozenset({JobState.RUNNING}), {"a": "b"}, self.now() - HOUR, self.now() + HOUR
        )
        load = await store.load(tenant)
        with mock.patch("steno.job.store.LONG_QUEUE", 0):
            _, long_queue_load = await store.load(tenant)
        return (
            load,
            long_queue_load,
            # Those that came at the same moment come in any order.
            sorted(job.display_name for job in await store.page(everything, 100, None)),
            len(await store.page(running, 100, None)),
            set(await store.unjoined_jobs(100, [])),
            set(await store.old(-HOUR, 100, [])),
            await store.old(HOUR, 100, []),
        )

    async def publish(self, limit: int, of: int) -> Any:
        async with self.outbox.unpublished(limit) as (events, sent):
            sent += events[:of]
        return len(events)

    async def dispatch(self, sequence: int) -> Any:
        """Sends all that is due: of what has the same turn, either side may send another."""
        due = await self.outbox.due_tasks(100, 100, AT_ONCE, HOUR, 1 / 8)
        await self.outbox.dispatched(due, range(sequence, sequence + len(due)))
        return {(task.task_id, task.attempt, task.dispatch_count) for task in due}

    async def turns(self, limit: int, least: int, moment: timedelta, share: float) -> Any:
        """Whose turn it is: by model, since of two models either may come first."""
        due = await self.outbox.due_tasks(limit, least, moment, HOUR, share)
        tasks = {row["task_id"]: row for row in await self.rows("tasks")}
        found: dict[str, list[Any]] = {}
        for each in due:
            task = tasks[each.task_id]
            place = (task["tenant"], task["priority"], task["turn"], task["slice_index"])
            found.setdefault(each.model, []).append(place)
        return found

    async def check_messages(self, age: timedelta) -> Any:
        found = await self.outbox.messages_to_check(age, 100)
        for task_id, sequence in found[:1]:
            await self.outbox.message_lost(task_id, sequence + 1)
            await self.outbox.message_lost(task_id, sequence)
        return len(found)

    async def check_audio(self, preparing: timedelta, ready: timedelta, number: int) -> Any:
        return (
            {each.job_id for each in await self.outbox.audio_to_check(preparing, ready, 100)},
            {each.job_id for each in await self.outbox.jobs_of_audio(UUID(int=number))},
        )


def _event(payload: bytes) -> str:
    """An event without its times."""
    event = job_pb2.JobEvent.FromString(payload)
    event.ClearField("time")
    for name in ("create_time", "start_time", "end_time", "update_time", "deadline"):
        if event.state_changed.HasField(name):
            getattr(event.state_changed, name).Clear()
    return str(event)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row, as far as both sides have it."""
    shown = dict(sorted(row.items()))
    if "payload" in shown:
        shown = {**shown, "payload": _event(shown["payload"])}
        shown.pop("tenant", None)
    if "gaps" in shown:
        shown["gaps"] = [(gap.lower, gap.upper) for gap in shown["gaps"]]
    # When a message goes out depends on what went out before, in an order that may be any.
    shown.pop("message_sequence", None)
    return shown


class Writer:
    """Draws calls that mostly make sense, from what is there."""

    def __init__(self, seed: int, side: Side) -> None:
        self._random = random.Random(seed)
        self._side = side
        self._lengths: dict[int, int] = {}

    async def next(self) -> Call:
        draw = self._random
        if not self._side.jobs or draw.random() < 0.12:
            return "create", self._creation()
        kinds = {
            "lease": 6,
            "complete": 4,
            "renew": 3,
            "fail": 3,
            "dispatch": 2,
            "turns": 3,
            "audio_changed": 3,
            "expire": 2,
            "look": 2,
            **dict.fromkeys(
                (
                    "find",
                    "past_leases",
                    "cancel",
                    "delete",
                    "delete_if_free",
                    "join",
                    "end_late",
                    "look_at_all",
                    "publish",
                    "check_messages",
                    "check_audio",
                ),
                1,
            ),
        }
        name = draw.choices([*kinds], [*kinds.values()])[0]
        return name, await getattr(self, f"_{name}")()

    def _creation(self) -> dict[str, Any]:
        draw = self._random
        retry_of = None
        if self._side.jobs and draw.random() < 0.25:
            retry_of = draw.randrange(len(self._side.jobs))
        return {
            "audio": self._audio(0),
            "request": draw.choice((None, 1, 2, 3)),
            "body": draw.choice(("same", "same", "other")),
            "retry_of": retry_of,
            "late": draw.choice((None, None, None, True, False)),
            "config": Options(draw.choice(MODELS), draw.choice(("", "en")), hotwords=("a",)),
            "labels": draw.choice(({}, {"a": "b"}, {"a": "b", "c": "d"})),
            "display_name": draw.choice(("", "a name")),
            "priority": draw.choice((*Priority,)),
            "tenant": draw.choice(TENANTS),
            "allow_gaps": draw.random() < 0.3,
        }

    def _audio(self, first: int) -> dict[str, Any]:
        draw = self._random
        state = draw.choice(("PREPARING", "READY", "READY"))
        return {
            "number": draw.randint(1, 3),
            "first": first,
            "last": first + draw.randint(0, 3),
            "state": state,
        }

    def _job(self) -> int:
        return self._random.randrange(len(self._side.jobs))

    async def _task(self, *states: str) -> dict[str, Any]:
        """A task, mostly in a state that fits."""
        tasks = await self._side.rows("tasks")
        fit = [row for row in tasks if row["state"] in states and self._random.random() < 0.95]
        if not tasks:
            return {"job": self._job(), "index": 0, "attempt": 1}
        row = self._random.choice(fit or tasks)
        attempt = row["attempt"] + (self._random.random() < 0.1)
        return {
            "job": self._side.jobs.index(row["job_id"]),
            "index": row["slice_index"],
            "attempt": attempt,
        }

    async def _lease(self) -> dict[str, Any]:
        task = await self._task("PENDING", "LEASED")
        task.pop("attempt")
        draw = self._random
        worker, request = draw.choice(("w1", "w2")), draw.randint(1, 2)
        return {**task, "store": self._store(), "worker": worker, "request": request}

    def _store(self) -> str:
        return self._random.choice(("short", "long"))

    async def _renew(self) -> dict[str, Any]:
        draw = self._random
        return {
            **await self._task("LEASED"),
            "store": self._store(),
            "samples": draw.randint(0, 2 * SLICE_SAMPLES),
            "language": draw.choice(("", "en", "de")),
        }

    async def _complete(self) -> dict[str, Any]:
        return {**await self._task("LEASED"), "language": self._random.choice(("", "en"))}

    async def _fail(self) -> dict[str, Any]:
        kinds = ("RETRYABLE", "RETRYABLE", "RETRYABLE", "PERMANENT", "HANDED_BACK", "UNREADABLE")
        return {**await self._task("LEASED"), "failure": self._random.choice(kinds)}

    async def _expire(self) -> dict[str, Any]:
        return await self._task("LEASED")

    async def _audio_changed(self) -> dict[str, Any]:
        job, draw = self._job(), self._random
        if draw.random() < 0.1:
            return {"job": job, "audio": None}
        tasks = await self._side.rows("tasks")
        count = sum(row["job_id"] == self._side.jobs[job] for row in tasks)
        audio = self._audio(max(0, count - draw.randint(0, 1)))
        if draw.random() < 0.05:
            audio["state"] = "REJECTED"
        return {"job": job, "audio": audio}

    async def _look(self) -> dict[str, Any]:
        return {"job": self._job()}

    _cancel = _delete = _delete_if_free = _join = _end_late = _look

    async def _find(self) -> dict[str, Any]:
        return {"request": self._random.randint(1, 3), "body": "same"}

    async def _past_leases(self) -> dict[str, Any]:
        return {}

    async def _look_at_all(self) -> dict[str, Any]:
        return {"tenant": self._random.choice(TENANTS)}

    async def _publish(self) -> dict[str, Any]:
        return {"limit": self._random.randint(1, 20), "of": self._random.randint(0, 20)}

    async def _dispatch(self) -> dict[str, Any]:
        return {"sequence": self._random.randint(1, 10**6)}

    async def _turns(self) -> dict[str, Any]:
        draw = self._random
        return {
            "limit": 100,
            "least": draw.choice((0, 1, 2, 3, 5)),
            "moment": draw.choice((AT_ONCE, HOUR)),
            "share": draw.choice((0.0, 1 / 8, 0.5)),
        }

    async def _check_messages(self) -> dict[str, Any]:
        return {"age": self._random.choice((AT_ONCE, HOUR))}

    async def _check_audio(self) -> dict[str, Any]:
        ages = (AT_ONCE, HOUR)
        draw = self._random
        return {
            "preparing": draw.choice(ages),
            "ready": draw.choice(ages),
            "number": draw.randint(1, 3),
        }


@pytest.mark.parametrize("seed", range(8))
async def test_the_simulated_database_does_what_postgres_does(
    seed: int, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "FIRST_PAUSE", HOUR)

    def simulate() -> list[Step]:
        loop, server = a_server(seed, job_statements)
        writer = partial(Writer, seed)
        return simulated(loop, server, Side, writer, count=STEPS, look_every=LOOK_EVERY)

    url = environment["STENO_POSTGRES_URL"]
    await hold_against_postgres(beside(simulate), url, "job", Side)


async def scenes(pool: Any, now: Callable[[], datetime]) -> list[Any]:
    """What transactions that meet see of each other."""
    seen: list[Any] = []
    jobs = Store(pool, HOUR, RULES)
    audio = an_audio(1, 0, 1, "READY")
    new = NewJob(audio.audio_id, Options("builtin", "en"))
    request = {"tenant": "t", "method": "Create", "request_id": UUID(int=7), "body_sha256": b"b"}

    meets = partial(waits, seen)

    # Who has locked a job is waited for, or passed over; who only reads sees what was before.
    job = await jobs.create(new, audio, None)
    by_id: dict[str, Any] = {"job_id": job.job_id}
    [task_id] = [task.task_id for task in await Outbox(pool).due_tasks(9, 9, HOUR, HOUR, 0.1)]
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    seen.append(await first.rows(statements.LOCK_JOB, **by_id))
    seen.append(await second.rows(statements.LOCK_JOB_IF_FREE, **by_id))
    seen.append(await second.rows(statements.LOCK_FREE_JOBS_OF_TASKS, task_ids=[task_id]))
    seen.append(await second.rows(statements.GET_JOB, **by_id))
    await first.does(statements.CANCEL_TASKS, **by_id)
    seen.append(await second.rows(statements.PAST_LEASES, limit=9, aside=[]))
    await meets(second.rows(statements.LOCK_JOB, **by_id), first, "commit")
    await second.roll_back()
    seen.append([task.task_id for task in await Outbox(pool).due_tasks(9, 9, HOUR, HOUR, 0.1)])

    # Who waits for a job that is deleted then finds none.
    await jobs.cancel(job.job_id)
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    seen.append(await first.rows(statements.LOCK_JOB, **by_id))
    await first.does(statements.DELETE_JOB, **by_id)
    seen.append(await second.rows(statements.GET_JOB, **by_id))
    await meets(second.rows(statements.LOCK_JOB, **by_id), first, "commit")
    await second.commit()

    # A job whose events are being sent is deleted after that; they are not sent twice.
    job = await jobs.create(new, audio, None)
    by_id = {"job_id": job.job_id}
    await jobs.cancel(job.job_id)
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    nothing: dict[str, Any] = {"job_ids_aside": [], "revisions_aside": []}
    seen.append(await first.rows(statements.UNPUBLISHED_EVENTS, limit=9, **nothing))
    seen.append(await second.rows(statements.UNPUBLISHED_EVENTS, limit=9, **nothing))
    await first.does(statements.MARK_PUBLISHED, job_ids=[job.job_id], revisions=[1])
    await meets(jobs.delete(job.job_id), first, "commit")
    await second.commit()

    # A call that is noted twice waits for the first note, which is there then, or is not.
    job = await jobs.create(new, audio, None)
    for ends in ("roll_back", "commit"):
        first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
        made = {**{f"{name}s": [value] for name, value in request.items()}, "job_ids": [job.job_id]}
        seen.append(await first.rows(statements.REMEMBER_REQUESTS, **made))
        await meets(second.rows(statements.REMEMBER_REQUESTS, **made), first, ends)
        await second.roll_back()

    # Of an event that is written twice without a lock, the second waits, and is refused.
    event = {"job_ids": [job.job_id], "revisions": [2], "payloads": [b"x"]}
    first, second = await Transaction(pool).begin(), await Transaction(pool).begin()
    await first.does(statements.INSERT_EVENTS, **event)
    await meets(second.does(statements.INSERT_EVENTS, **event), first, "commit")
    await second.roll_back()
    return seen


async def test_transactions_meet_as_they_do_in_postgres(environment: dict[str, str]) -> None:
    await meet_alike(scenes, job_statements)
