"""Jobs, tasks and events in Postgres.

One method is one transaction. Whatever changes a job locks its row first, so changes of one job
come one after another: revisions have no holes, and no two transactions wait for each other.
Tasks are only changed under their job's lock. Whoever holds one may be frozen: what is done for
many jobs leaves out those that are locked, and comes back to them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from steno.job.domain import (
    AUDIO_DELETED,
    DEADLINE_EXCEEDED,
    SLICE_FAILED,
    Attempt,
    Audio,
    AudioRejected,
    AudioState,
    Failure,
    Job,
    JobError,
    JobFilter,
    JobNotFound,
    JobServiceError,
    JobState,
    NewJob,
    RequestId,
    RequestIdReused,
    RetryRules,
    SegmentsAdded,
    Slice,
    StaleLease,
    Standing,
    Task,
    TaskNotFound,
    TaskState,
    events_between,
)
from steno.job.messages import parse_result
from steno.job.rows import (
    Load,
    Queue,
    job_of,
    loads_of,
    queue_of,
    slice_of,
    standing_of,
    task_of,
)
from steno.job.statements import (
    CANCEL_TASKS,
    COPY_DONE_TASKS,
    DELETE_JOB,
    ENDED_TASKS,
    EVENTS_AFTER,
    EVENTS_FROM,
    FIND_REQUEST,
    GET_JOB,
    GET_TASKS,
    JOB_EXISTS,
    JOB_OF_TASK,
    JOBS_WITH_RETRIED,
    JOINED_RESULTS,
    LATE_JOBS,
    LOAD_OF_TENANT,
    LOADS,
    LOCK_FREE_JOBS_OF_TASKS,
    LOCK_JOB,
    LOCK_JOB_IF_FREE,
    OLD_JOBS,
    PAST_LEASES,
    RELEASE_TASKS,
    REMEMBER_REQUESTS,
    TENANT_OF_JOB,
    UNJOINED_JOBS,
    list_jobs,
)
from steno.job.turns import CLOCKS, QUEUE, line_of, queued
from steno.job.writer import Writer
from steno.platform.database import AWAY, Connection, Pool, every, one
from steno.platform.errors import Unavailable
from steno.platform.group_commit import GroupCommit
from steno.platform.loops import Signal
from steno.platform.shared import Recent, Shared
from steno.platform.telemetry import trace_headers
from steno.transcript import SliceTranscript, join_coverage, stitch

MAX_GROUP = 50
"""Calls that share a transaction, at most."""

LOCKED_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between tries to lock a job that another transaction holds."""

RESULTS_AT_ONCE = 50
"""Transcripts of slices that are read, or joined, in one go. More would hold up the event loop."""

LONG_QUEUE = 1000
"""Jobs that wait or run: of more, places and sums are not read for each call."""

MAX_GROUPED_SLICES = 100
"""A job with more is made in a transaction of its own: other calls would wait for it."""


@dataclass(frozen=True, slots=True)
class Leased:
    """What a worker gets with a lease."""

    task: Task
    job: Job
    lease: timedelta


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker learns when it renews a lease."""

    cancelled: bool
    language_code: str


@dataclass(frozen=True, slots=True)
class Joined:
    """What is transcribed of a job.

    Attributes:
        job: the job.
        results: its slices from the start up to the first that is not done, each with what its
            worker sent, or None where it was left out.
    """

    job: Job
    results: Sequence[tuple[Slice, bytes | None]]


class JobLocked(Exception):
    """Another transaction holds the job's lock."""


@dataclass(slots=True)
class _Change:
    """A job that is locked, or new: set `job` to what it becomes, and `attempt` with a lease."""

    tx: Writer
    before: Job | None
    job: Job
    now: datetime
    trace: Mapping[str, str] = field(default_factory=dict)
    added: list[SegmentsAdded] = field(default_factory=list)
    attempt: Attempt | None = None


class _TaskCall(NamedTuple):
    """A call that changes a task and its job, such as one of the task's worker.

    Attributes:
        task_id: the task.
        attempt: the lease that the caller holds, if it needs one.
        apply: makes the change, under the job's lock. An error of the caller comes before the first
            statement.
        context: the caller's, for the log lines that belong to its trace.
    """

    task_id: UUID
    attempt: int | None
    apply: Callable[[_Change, Task], Awaitable[Any]]
    context: Context

    @property
    def missing(self) -> Exception:
        """Whoever has a lease on a task that is gone learns that the lease is."""
        if self.attempt is None:
            return TaskNotFound(self.task_id)
        return StaleLease(self.task_id, self.attempt)


class _Creation(NamedTuple):
    """A job that is to be made, the caller's context, and the trace that the job belongs to."""

    new: NewJob
    audio: Audio
    request: RequestId | None
    context: Context
    trace: Mapping[str, str]


class _Committed(NamedTuple):
    """What a job was and what it has become, the context of the call that did it, and its lease."""

    before: Job | None
    after: Job
    context: Context
    attempt: Attempt | None = None


def _creation(new: NewJob, audio: Audio, request: RequestId | None) -> _Creation:
    return _Creation(new, audio, request, copy_context(), trace_headers())


def _total(loads: Mapping[str, Load]) -> Load:
    jobs, samples = zip(*loads.values(), strict=True) if loads else ((), ())
    return Load(sum(jobs), sum(samples))


class Store:
    """The jobs. Raises JobNotFound and TaskNotFound for ids that are not there."""

    def __init__(
        self,
        pool: Pool,
        lease: timedelta,
        retry_rules: RetryRules,
        committed: Callable[[Job | None, Job], None] = lambda before, after: None,
        attempted: Callable[[Job, Attempt], None] = lambda job, attempt: None,
    ) -> None:
        """Takes the pool and the rules of leases.

        Args:
            pool: of connections.
            lease: silence after which a task is taken from its worker.
            retry_rules: how long a task is tried.
            committed: called after each change of a job, with what it was and what it became.
            attempted: called after a lease of a job's task began or ended; not if the job ended
                before it.
        """
        self._pool = pool
        self._lease = lease
        self._retry_rules = retry_rules
        self._committed = committed
        self._attempted = attempted
        self.unjoined = Signal()
        """Called when a job has more slices to be joined than were joined at once."""
        self._queue = Recent(self._look_at_queue, lambda queue: len(queue) > LONG_QUEUE)
        self._loads = Recent(self._look_at_loads, lambda loads: _total(loads).jobs > LONG_QUEUE)
        self._load_of_tenant = Shared(self._look_at_load_of)
        self._create_in_group = GroupCommit(self._create_group, MAX_GROUP, AWAY)
        self._apply_in_group = GroupCommit(self._apply_group, MAX_GROUP, AWAY)

    async def find(self, request: RequestId) -> Job | None:
        """Returns the job that a call made, if it was made before.

        Raises:
            RequestIdReused: with another body.
        """
        async with self._pool.connection() as db:
            return await self._find(db, request)

    async def create(self, new: NewJob, audio: Audio, request: RequestId | None) -> Job:
        """Makes a job; see `create_all`."""
        [job] = await self.create_all([(new, audio, request)])
        return job

    async def create_all(
        self, wanted: Sequence[tuple[NewJob, Audio, RequestId | None]]
    ) -> list[Job]:
        """Makes jobs with a task for each slice there is: all or none, in one transaction.

        A repeat answers the job that it made. A retry of another job takes over what that one has
        done. One job alone shares the transaction with others that are made at the same moment.

        Raises:
            RequestIdReused: a request_id was used with another body.
        """
        creations = [_creation(*each) for each in wanted]
        if len(creations) == 1 and len(creations[0].audio.slices) <= MAX_GROUPED_SLICES:
            return [await self._create_in_group(creations[0])]
        if not creations:
            return []
        async with self._pool.transaction() as db:
            answers, created = await self._insert_jobs(db, creations)
            jobs = []
            for place in range(len(creations)):
                job = answers[place]
                if isinstance(job, Exception):
                    raise job
                jobs.append(job)
        self._report(created)
        return jobs

    async def get(self, job_id: UUID) -> Job:
        """Returns a job."""
        async with self._pool.connection() as db:
            row = await one(db, GET_JOB, job_id=job_id)
        if row is None:
            raise JobNotFound(job_id)
        return job_of(row)

    async def tenant_of(self, job_id: UUID) -> str | None:
        """Whose a job is; None if there is none."""
        async with self._pool.connection() as db:
            row = await one(db, TENANT_OF_JOB, job_id=job_id)
        return None if row is None else row["tenant"]

    async def page(
        self, where: JobFilter, limit: int, before: tuple[datetime, UUID] | None
    ) -> list[Job]:
        """Returns jobs, newest first.

        Args:
            where: which jobs.
            limit: most jobs to return.
            before: create_time and id of the last job of the page before.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                list_jobs(where, first_page=before is None),
                tenant=where.tenant,
                states=[str(state) for state in where.states],
                labels=Jsonb(dict(where.labels)),
                create_time_from=where.create_time_from,
                create_time_to=where.create_time_to,
                before_time=before and before[0],
                before_job_id=before and before[1],
                limit=limit,
            )
        return [job_of(row) for row in rows]

    async def standings(self, job_ids: Collection[UUID]) -> dict[UUID, Standing]:
        """Returns where jobs stand in the queue; without those that are gone.

        What is told of a queue longer than LONG_QUEUE may be somewhat old; see `Recent`.
        """
        async with self._pool.connection() as db:
            rows = await every(db, JOBS_WITH_RETRIED, job_ids=list(job_ids))
        waits = any(not JobState(row["state"]).ended for row in rows)
        queue = await self._queue.get() if waits else {}
        return {row["job_id"]: standing_of(row, queue) for row in rows}

    async def standing(self, job_id: UUID) -> Standing:
        """Returns where one job stands in the queue."""
        found = await self.standings([job_id])
        if job_id not in found:
            raise JobNotFound(job_id)
        return found[job_id]

    async def _look_at_queue(self) -> Queue:
        async with self._pool.connection() as db:
            return queue_of(await one(db, QUEUE))

    async def load(self, tenant: str) -> tuple[Load, Load]:
        """Returns how much there is to do, in all and for a tenant.

        Of more jobs than LONG_QUEUE, the first may be somewhat old; see `Recent`.
        """
        loads = await self._loads.get()
        total = _total(loads)
        if total.jobs > LONG_QUEUE:
            loads = await self._load_of_tenant.get(tenant)
        return total, loads.get(tenant, Load(0, 0))

    async def _look_at_loads(self) -> Mapping[str, Load]:
        async with self._pool.connection() as db:
            return loads_of(await every(db, LOADS))

    async def _look_at_load_of(self, tenant: str) -> Mapping[str, Load]:
        async with self._pool.connection() as db:
            return loads_of(await every(db, LOAD_OF_TENANT, tenant=tenant))

    async def cancel(self, job_id: UUID) -> Job:
        """Ends a job and its tasks; what is done stays.

        Raises:
            JobEnded: it has succeeded or failed already.
        """
        async with self._changing(job_id) as change:
            change.job = change.job.cancelled(change.now)
            await change.tx.execute(CANCEL_TASKS, job_id=job_id)
        return change.job

    async def delete(self, job_id: UUID, *, wait: bool = True) -> None:
        """Removes a job that has ended.

        Raises:
            JobNotEnded: it has not.
            JobLocked: another transaction holds the job, and `wait` is false.
        """
        async with self._changing(job_id, wait=wait) as change:
            change.job.check_deletable()
            await change.tx.execute(DELETE_JOB, job_id=job_id)

    async def old(self, age: timedelta, limit: int, aside: Sequence[UUID]) -> list[UUID]:
        """Returns jobs that ended so long ago, the oldest first, without those left aside."""
        async with self._pool.connection() as db:
            rows = await every(db, OLD_JOBS, age=age, limit=limit, aside=list(aside))
        return [row["job_id"] for row in rows]

    async def joined(self, job: Job) -> Joined:
        """Returns what is transcribed of a job, as of when it was read."""
        results: list[tuple[Slice, bytes | None]] = []
        # They do not change any more. All at once, the event loop would stand still for long ones.
        for first in range(0, job.joined_count, RESULTS_AT_ONCE):
            last = min(first + RESULTS_AT_ONCE, job.joined_count)
            async with self._pool.connection() as db:
                rows = await every(
                    db, JOINED_RESULTS, job_id=job.job_id, first_index=first, end_index=last
                )
            results += [(slice_of(row), row["result"]) for row in rows]
        if len(results) < job.joined_count:
            raise JobNotFound(job.job_id)  # deleted meanwhile
        return Joined(job, results)

    async def audio_changed(self, job_id: UUID, audio: Audio | None) -> None:
        """Takes in what the upload service says of a job's audio; None says it was deleted.

        Raises:
            JobLocked: another transaction holds the job.
        """
        async with self._changing(job_id, wait=False) as change:
            if not change.job.state.ended:
                await self._take_in(change, audio)

    async def events_after(self, job_id: UUID, revision: int, limit: int) -> list[bytes]:
        """Returns a job's next events, in order, as JobEvents. A job that is gone has none."""
        async with self._pool.connection() as db:
            rows = await every(db, EVENTS_AFTER, job_id=job_id, revision=revision, limit=limit)
        return [row["payload"] for row in rows]

    async def events_from(
        self, revisions: Mapping[UUID, int], limit: int
    ) -> list[tuple[UUID, int, bytes]]:
        """Returns events of several jobs, each from a revision on, in order.

        Args:
            revisions: first revision, by job.
            limit: most events of each.

        Returns:
            Job, revision and JobEvent.
        """
        async with self._pool.connection() as db:
            rows = await every(
                db,
                EVENTS_FROM,
                job_ids=[*revisions],
                revisions=[*revisions.values()],
                limit=limit,
            )
        return [(row["job_id"], row["revision"], row["payload"]) for row in rows]

    async def lease(self, task_id: UUID, worker_id: str, request_id: UUID | None) -> Leased:
        """Gives a task to a worker; the first one starts the job. A repeat gets the same lease.

        Raises:
            TaskLeased: another worker holds it.
            TaskNotPending: there is nothing to do.
        """

        async def apply(change: _Change, task: Task) -> Leased:
            leased = task.leased(worker_id, change.now, request_id)
            change.job = change.job.started(change.now)
            change.tx.save_task(leased)
            if leased is not task:
                change.attempt = Attempt(leased, change.now)
            return Leased(leased, change.job, self._lease)

        leased: Leased = await self._change_task(task_id, None, apply)
        return leased

    async def renew(
        self, task_id: UUID, attempt: int, sample_count: int, language_code: str
    ) -> Renewal:
        """Keeps a lease, and takes in progress and language.

        Raises:
            StaleLease: the lease has passed to another worker.
        """

        async def apply(change: _Change, task: Task) -> Renewal:
            task.check_lease(attempt, TaskState.LEASED, TaskState.DONE, TaskState.CANCELLED)
            if task.state is TaskState.LEASED:
                task = self._advance(change, task, task.advanced(sample_count))
                await self._set_language(change, language_code)
            return Renewal(task.state is TaskState.CANCELLED, change.job.language_code)

        renewal: Renewal = await self._change_task(task_id, attempt, apply)
        return renewal

    async def complete(
        self, task_id: UUID, attempt: int, language_code: str, result: bytes
    ) -> None:
        """Stores a slice's transcript and its events, or neither. A repeat changes nothing.

        Args:
            task_id: the task.
            attempt: token of the lease.
            language_code: that was found, or empty.
            result: a steno.v1.SliceTranscript.

        Raises:
            StaleLease: the lease has passed to another worker, or the task was cancelled.
        """

        async def apply(change: _Change, task: Task) -> None:
            task.check_lease(attempt, TaskState.LEASED, TaskState.DONE)
            if task.state is TaskState.DONE:
                return
            done = self._advance(change, task, task.completed(), result)
            change.attempt = Attempt(done, change.now)
            await self._set_language(change, language_code)
            await self._ended(change, task, result)

        await self._change_task(task_id, attempt, apply)

    async def fail(self, task_id: UUID, attempt: int, failure: Failure, message: str) -> None:
        """Takes a task back from its worker. A repeat changes nothing.

        Raises:
            StaleLease: the lease has passed to another worker, or the task was cancelled.
        """

        async def apply(change: _Change, task: Task) -> None:
            task.check_lease(attempt, TaskState.LEASED, TaskState.PENDING, TaskState.FAILED)
            if task.state is TaskState.LEASED:
                await self._give_back(change, task, failure, message)

        await self._change_task(task_id, attempt, apply)

    async def unjoined_jobs(self, limit: int, aside: Sequence[UUID]) -> list[UUID]:
        """Returns jobs of which more slices can be joined, without those left aside."""
        async with self._pool.connection() as db:
            rows = await every(db, UNJOINED_JOBS, limit=limit, aside=list(aside))
        return [row["job_id"] for row in rows]

    async def join(self, job_id: UUID) -> None:
        """Makes the segments final of more slices.

        Raises:
            JobLocked: another transaction holds the job.
        """
        async with self._changing(job_id, wait=False) as change:
            if not change.job.state.ended:
                await self._join(change)
                change.job = change.job.settled(change.now)

    async def past_leases(self, limit: int, aside: Sequence[UUID]) -> list[tuple[UUID, int]]:
        """Returns tasks whose leases are past their time, with the attempt, the oldest first.

        Without those left aside.
        """
        async with self._pool.connection() as db:
            rows = await every(db, PAST_LEASES, limit=limit, aside=list(aside))
        return [(row["task_id"], row["attempt"]) for row in rows]

    async def expire(self, task_id: UUID, attempt: int) -> bool:
        """Takes a task back whose worker fell silent; returns whether it did.

        Nothing changes if the lease was renewed or has ended meanwhile. Workers' calls neither wait
        for it nor does it wait for them.

        Raises:
            JobLocked: another transaction holds the job.
        """
        async with self._pool.connection() as db:
            row = await one(db, JOB_OF_TASK, task_id=task_id)
        if row is None:
            return False  # deleted meanwhile
        given_back: Attempt | None = None
        with suppress(JobNotFound):
            async with self._changing(row["job_id"], wait=False) as change:
                for found in await change.tx.every(GET_TASKS, task_ids=[task_id]):
                    task = task_of(found)
                    until = task.lease_expire_time
                    if task.attempt == attempt and until is not None and until < change.now:
                        message = f"worker {task.worker_id} fell silent"
                        await self._give_back(change, task, Failure.EXPIRED, message)
                given_back = change.attempt
        if given_back is not None:
            self._attempted(change.job, given_back)
        return given_back is not None

    async def late(self, limit: int, aside: Sequence[UUID]) -> list[UUID]:
        """Returns jobs that have not ended by their deadline, without those left aside."""
        async with self._pool.connection() as db:
            rows = await every(db, LATE_JOBS, limit=limit, aside=list(aside))
        return [row["job_id"] for row in rows]

    async def end_late(self, job_id: UUID) -> bool:
        """Fails a job whose deadline has passed; returns whether it did.

        One that has ended meanwhile stays as it is.

        Raises:
            JobLocked: another transaction holds the job.
        """
        async with self._changing(job_id, wait=False) as change:
            late = not change.job.state.ended
            if late:
                why = f"it had not ended by {change.job.deadline:%Y-%m-%d %H:%M:%S %Z}"
                await self._end(change, JobError(DEADLINE_EXCEEDED, why))
        return late

    async def _create_group(self, wanted: Sequence[_Creation]) -> Mapping[int, Job | Exception]:
        """Makes jobs in one transaction, as far as they can be made; see `GroupCommit`."""
        async with self._pool.transaction() as db:
            answers, created = await self._insert_jobs(db, wanted)
        self._report(created)
        return answers

    async def _insert_jobs(
        self, db: Connection, wanted: Sequence[_Creation]
    ) -> tuple[dict[int, Job | Exception], list[_Committed]]:
        """Returns a job for each call, by the call's place, and those that are new."""
        tx = Writer(db, self._lease)
        clocks, now = await self._clocks(tx, [each.new for each in wanted])
        ids = [uuid4() for _ in wanted]
        made_before = await self._made_before(tx, wanted, ids)
        answers: dict[int, Job | Exception] = {}
        created = []
        for place, (job_id, each) in enumerate(zip(ids, wanted, strict=True)):
            if job_id not in made_before:
                job = await self._insert_job(tx, job_id, each, clocks[line_of(each.new)], now)
                answers[place] = job
                created.append(_Committed(None, job, each.context))
        await tx.flush()
        for place, (job_id, each) in enumerate(zip(ids, wanted, strict=True)):
            if job_id in made_before:
                assert each.request is not None
                answers[place] = await self._found(db, each.request)
        return answers, created

    async def _made_before(
        self, tx: Writer, wanted: Sequence[_Creation], ids: Sequence[UUID]
    ) -> set[UUID]:
        """Notes the calls that can be repeated; returns the ids of those that are repeats."""
        noted = [
            (each.request, job_id)
            for each, job_id in zip(wanted, ids, strict=True)
            if each.request is not None
        ]
        if not noted:
            return set()
        # Two transactions that share request ids must not wait for each other.
        noted.sort(key=lambda each: str(each[0]))
        rows = await tx.every(
            REMEMBER_REQUESTS,
            tenants=[request.tenant for request, _ in noted],
            methods=[request.method for request, _ in noted],
            request_ids=[request.request_id for request, _ in noted],
            body_sha256s=[request.body_sha256 for request, _ in noted],
            job_ids=[job_id for _, job_id in noted],
        )
        return {job_id for _, job_id in noted} - {row["job_id"] for row in rows}

    async def _insert_job(
        self, tx: Writer, job_id: UUID, wanted: _Creation, clock: int, now: datetime
    ) -> Job:
        new, audio = wanted.new, wanted.audio
        created = new.made(job_id, audio.filename, clock, now)
        slices = created.new_slices(audio)
        turns: list[int] = []
        change = _Change(tx, None, created.prepared(audio), now, wanted.trace)
        if new.retry_of_job_id is None:
            change.job, turns = queued(change.job, slices, clock)
        self._save(change)
        # A second change, so that the log begins with the job and not with its end.
        change = _Change(tx, change.job, change.job, now)
        if new.retry_of_job_id is not None:
            done = await self._copy_done(change)
            slices = [each for each in slices if each.index not in done]
            change.job, turns = queued(change.job, slices, clock)
            change.job = change.job.transcribed(sum(done.values()))
            await self._join(change)
        tx.insert_tasks(change.job, slices, turns)
        change.job = change.job.settled(now)
        self._save(change)
        return change.job

    async def _change_task(
        self,
        task_id: UUID,
        attempt: int | None,
        apply: Callable[[_Change, Task], Awaitable[Any]],
    ) -> Any:
        """Changes a task and its job under the job's lock; see `_TaskCall`.

        Whoever holds the lock may be frozen: it is waited for without a connection, and the calls
        on all other jobs go on.
        """
        call = _TaskCall(task_id, attempt, apply, copy_context())
        for pause in LOCKED_PAUSES:
            with suppress(JobLocked):
                return await self._apply_in_group(call)
            await asyncio.sleep(pause)
        raise Unavailable("another call changes the job; try again")

    async def _apply_group(self, calls: Sequence[_TaskCall]) -> Mapping[int, Any]:
        """Does one call of each job in one transaction; see `GroupCommit`.

        The answer to calls on jobs that another transaction holds is JobLocked.
        """
        answers: dict[int, Any] = {}
        changed = []
        async with self._pool.transaction() as db:
            ids = {"task_ids": [call.task_id for call in calls]}
            locked = await db.execute(LOCK_FREE_JOBS_OF_TASKS, ids)
            found = await db.execute(GET_TASKS, ids)
            await db.settle()
            tasks = {row["task_id"]: row for row in await found.fetchall()}
            jobs = {row["job_id"]: row for row in await locked.fetchall()}
            tx = Writer(db, self._lease)
            done = set()
            for place, call in enumerate(calls):
                row = tasks.get(call.task_id)
                if row is not None and row["job_id"] in done:
                    continue
                if row is None:
                    answers[place] = call.missing
                    continue
                if row["job_id"] not in jobs:
                    answers[place] = JobLocked()
                    continue
                done.add(row["job_id"])
                change = self._change(tx, jobs[row["job_id"]])
                try:
                    answers[place] = await call.apply(change, task_of(row))
                except JobServiceError as error:
                    answers[place] = error
                    continue
                self._save(change)
                changed.append(_Committed(change.before, change.job, call.context, change.attempt))
            await tx.flush()
        self._report(changed)
        return answers

    def _report(self, changes: Sequence[_Committed]) -> None:
        """Calls `committed` and `attempted` for what is committed, in its caller's context."""
        for before, after, context, attempt in changes:
            context.run(self._committed, before, after)
            if attempt is not None:
                self._attempted(after, attempt)

    @asynccontextmanager
    async def _changing(self, job_id: UUID, *, wait: bool = True) -> AsyncIterator[_Change]:
        """Locks a job; at the end of the block saves what it became, with its events."""
        async with self._pool.transaction() as db:
            row = await one(db, LOCK_JOB if wait else LOCK_JOB_IF_FREE, job_id=job_id)
            if row is None and not wait and await one(db, JOB_EXISTS, job_id=job_id) is not None:
                raise JobLocked
            if row is None:
                raise JobNotFound(job_id)
            change = self._change(Writer(db, self._lease), row)
            yield change
            self._save(change)
            await change.tx.flush()
        self._committed(change.before, change.job)

    def _change(self, tx: Writer, locked: DictRow) -> _Change:
        job = job_of(locked)
        # A transaction that waited for the lock must not write an older time.
        return _Change(tx, job, job, max(locked["now"], job.update_time))

    def _save(self, change: _Change) -> None:
        """Writes what a job became, if it changed, and the events between."""
        if change.job == change.before:
            return
        after = dataclasses.replace(change.job, update_time=change.now)
        change.job, events = events_between(change.before, after, change.added)
        if change.before is None:
            change.tx.insert_job(change.job, change.trace)
        else:
            change.tx.save_job(change.job)
        change.tx.insert_events(change.job, change.now, events)

    async def _found(self, db: Connection, request: RequestId) -> Job | RequestIdReused:
        """The job that was made for a call whose note is there."""
        try:
            job = await self._find(db, request)
        except RequestIdReused as error:
            return error
        assert job is not None, "the row that was in the way is there"
        return job

    async def _find(self, db: Connection, request: RequestId) -> Job | None:
        row = await one(db, FIND_REQUEST, **dataclasses.asdict(request))
        if row is None:
            return None
        if row["body_sha256"] != request.body_sha256:
            raise RequestIdReused(request.request_id)
        job = await one(db, GET_JOB, job_id=row["job_id"])
        return job_of(job) if job is not None else None

    async def _take_in(self, change: _Change, audio: Audio | None) -> None:
        """Adds the slices that are new, and ends the job if its audio can't be used."""
        if audio is None:
            await self._end(change, JobError(AUDIO_DELETED, "the audio was deleted"))
        elif audio.state is AudioState.REJECTED:
            await self._end(change, JobError(AudioRejected.reason, audio.rejection_message))
        else:
            new = change.job.new_slices(audio)
            change.job = change.job.prepared(audio)
            if new:
                clocks, _ = await self._clocks(change.tx, [change.job])
                change.job, turns = queued(change.job, new, clocks[line_of(change.job)])
                change.tx.insert_tasks(change.job, new, turns)
            change.job = change.job.settled(change.now)

    async def _clocks(
        self, tx: Writer, jobs: Sequence[NewJob | Job]
    ) -> tuple[dict[tuple[str, str, int], int], datetime]:
        """The clock of each job's line, and the time. See CLOCKS."""
        tenants, models, priorities = zip(*sorted({line_of(job) for job in jobs}), strict=True)
        rows = await tx.every(
            CLOCKS, tenants=[*tenants], models=[*models], priorities=[*priorities]
        )
        clocks = {(row["tenant"], row["model"], row["priority"]): row["turn"] for row in rows}
        return clocks, rows[0]["now"]

    async def _copy_done(self, change: _Change) -> dict[int, int]:
        """Copies the tasks that the job before has done; returns their slices and lengths."""
        rows = await change.tx.every(
            COPY_DONE_TASKS,
            job_id=change.job.job_id,
            retry_of_job_id=change.job.retry_of_job_id,
        )
        return {row["slice_index"]: row["sample_count"] for row in rows}

    def _advance(
        self, change: _Change, task: Task, advanced: Task, result: bytes | None = None
    ) -> Task:
        more = advanced.transcribed_sample_count - task.transcribed_sample_count
        change.job = change.job.transcribed(more)
        change.tx.save_task(advanced, result)
        return advanced

    async def _set_language(self, change: _Change, language_code: str) -> None:
        """Fixes the language, if it was still to be found, and releases all tasks."""
        if language_code and not change.job.language_code:
            change.job = change.job.detected(language_code)
            if not change.job.has_one_task:
                await self._release(change, change.job.task_count)

    async def _ended(self, change: _Change, task: Task, result: bytes | None = None) -> None:
        """Nothing more is to be done for a task."""
        if task.slice.index == change.job.joined_count:
            await self._join(change, [(task.slice, result)] if change.job.has_one_task else None)
        change.job = change.job.settled(change.now)

    async def _join(
        self, change: _Change, ended: Sequence[tuple[Slice, bytes | None]] | None = None
    ) -> None:
        """Makes the segments final of slices that have ended and have no hole before them.

        There may be more of them than are joined at once, if the first one came last: `join` goes
        on.

        Args:
            change: of the job.
            ended: those slices with their results, where they are known.
        """
        job = change.job
        if ended is None:
            ended = await self._ended_slices(change)
        before: SliceTranscript | None = None
        for piece, result in ended:
            if piece.index != change.job.joined_count:
                break
            found = parse_result(piece, result)
            if found.left_context and before is None:
                [last] = await change.tx.every(
                    JOINED_RESULTS,
                    job_id=job.job_id,
                    first_index=job.joined_count - 1,
                    end_index=job.joined_count,
                )
                before = parse_result(slice_of(last), last["result"])
            segments = stitch(
                [found],
                first_index=change.job.segment_count,
                before=before,
                words=job.config.word_time_offsets,
            )
            before = found
            if segments:
                change.added.append(SegmentsAdded(segments))
            change.job = change.job.joined(len(segments), join_coverage([found]))
        if change.job.joined_count == job.joined_count + RESULTS_AT_ONCE:
            self.unjoined()
        if not change.job.releases_all and change.job.joined_count < change.job.task_count:
            await self._release(change, change.job.joined_count)

    async def _ended_slices(self, change: _Change) -> list[tuple[Slice, bytes | None]]:
        rows = await change.tx.every(
            ENDED_TASKS,
            job_id=change.job.job_id,
            first_index=change.job.joined_count,
            limit=RESULTS_AT_ONCE,
        )
        return [(slice_of(row), row["result"]) for row in rows]

    async def _release(self, change: _Change, last_index: int) -> None:
        await change.tx.execute(RELEASE_TASKS, job_id=change.job.job_id, last_index=last_index)

    async def _give_back(self, change: _Change, task: Task, failure: Failure, message: str) -> None:
        task = task.given_back(failure, message, change.now, self._retry_rules)
        change.tx.save_task(task)
        change.attempt = Attempt(task, change.now, failure)
        if task.state is not TaskState.FAILED:
            return
        why = f"slice {task.slice.index} could not be transcribed: {task.last_error}"
        error = JobError(SLICE_FAILED, why)
        # What is asked of the model, and can't be done, can't be done for any slice.
        if change.job.allow_gaps and failure is not Failure.PERMANENT:
            left = task.slice.sample_count - task.transcribed_sample_count
            change.job = change.job.left_out(error).transcribed(left)
            await self._ended(change, task)
        else:
            await self._end(change, error)

    async def _end(self, change: _Change, error: JobError) -> None:
        change.job = change.job.failed(error, change.now)
        await change.tx.execute(CANCEL_TASKS, job_id=change.job.job_id)
