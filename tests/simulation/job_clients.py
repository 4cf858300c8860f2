"""Callers of JobService: each has a job made, and follows it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from simulation.calls import Calls, Lost
from simulation.history import AWAY, Call, History, Outcome, Watch, recorded
from simulation.job_service import Replica
from simulation.loop import Loop
from steno.job.domain import (
    AudioNotFound,
    AudioRejected,
    Config,
    Job,
    JobEnded,
    JobNotEnded,
    JobNotFound,
    JobNotRetryable,
    JobNotSucceeded,
    NewJob,
    RequestId,
)
from steno.job.messages import ends
from steno.platform.errors import InvalidArgument
from steno.v1.job_pb2 import WatchJobResponse

DEADLINE = 3.0
PAUSE = 0.4

Work = Callable[[Replica], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller wants.

    Attributes:
        audio_id: what is to be transcribed.
        config: how.
        asked_at_once: how often the same call is made at the same time.
        watchers: how many follow the job.
        cuts: probability that a watcher's stream is cut after a message.
        cancels: seconds after which the job is cancelled.
        retries: a job that can be retried is.
        deadline: seconds after which it is of no use.
        allow_gaps: what can't be transcribed may be left out.
        deletes: the job is deleted when it has ended, or as soon as it is cancelled.
    """

    audio_id: UUID
    config: Config
    asked_at_once: int = 1
    watchers: int = 1
    cuts: float = 0.0
    cancels: float | None = None
    deadline: float | None = None
    allow_gaps: bool = False
    retries: bool = False
    deletes: bool = False


class Client:
    """A caller, and its watchers."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        calls: Calls,
        replicas: Sequence[Replica],
        history: History,
        wishes: Wishes,
    ) -> None:
        self._name = name
        self._loop = loop
        self._calls = calls
        self._replicas = replicas
        self._history = history
        self._wishes = wishes

    async def run(self) -> None:
        """Sees to a job until nothing more is to come of it."""
        await asyncio.sleep(0.2 * self._loop.random.random())
        wishes = self._wishes
        request = self._request("CreateJob")
        deadline = None
        if wishes.deadline is not None:
            deadline = self._loop.now + timedelta(seconds=wishes.deadline)
        new = NewJob(
            wishes.audio_id, wishes.config, deadline=deadline, allow_gaps=wishes.allow_gaps
        )
        try:
            job = await self._made(
                "create",
                request,
                lambda replica: replica.jobs.create(new, request),
                lambda replica: replica.create_batch(new, request),
            )
        except (AudioNotFound, AudioRejected, InvalidArgument):
            return  # the deadline may have passed meanwhile
        await self._see_to(job.job_id)
        if wishes.retries:
            again = self._request("RetryJob")
            with suppress(JobNotFound, JobNotRetryable):
                job = await self._made(
                    "retry",
                    again,
                    lambda replica: replica.jobs.retry(job.job_id, again),
                    lambda replica: replica.jobs.retry(job.job_id, again),
                    job_id=job.job_id,
                )
                await self._see_to(job.job_id)

    async def _made(self, kind: str, request: RequestId, *ways: Work, **about: Any) -> Job:
        """Has a job made; some ask at the same time, in other ways, until all are answered."""
        asking = [
            self._until_answered(kind, work, request=request, **about)
            for work in ways[: self._wishes.asked_at_once]
        ]
        jobs: list[Job] = await self._all(asking)
        return jobs[0]

    async def _see_to(self, job_id: UUID) -> None:
        watching = [self._watch(job_id) for _ in range(self._wishes.watchers)]
        await self._all([*watching, self._cancel(job_id), self._follow(job_id)])
        for _ in range(1 + self._loop.chance(0.3)):
            with suppress(JobNotFound, JobNotSucceeded, JobNotEnded):
                await self._until_answered(
                    "transcript",
                    lambda replica: replica.transcript(job_id, allow_partial=False),
                    job_id=job_id,
                )
        if self._wishes.deletes:
            await self._delete(job_id)
            with suppress(JobNotFound):
                await self._until_answered(
                    "get", lambda replica: replica.jobs.get(job_id), job_id=job_id
                )

    async def _follow(self, job_id: UUID) -> None:
        """Asks now and then where the job stands."""
        for _ in range(int(3 * self._loop.random.random())):
            await asyncio.sleep(0.5 * self._loop.random.random())
            with suppress(JobNotFound):
                await self._until_answered(
                    "get", lambda replica: replica.jobs.get(job_id), job_id=job_id
                )

    async def _cancel(self, job_id: UUID) -> None:
        if self._wishes.cancels is None:
            return
        await asyncio.sleep(self._wishes.cancels)
        with suppress(JobEnded, JobNotFound):
            await self._until_answered(
                "cancel", lambda replica: replica.jobs.cancel(job_id), job_id=job_id
            )
            if self._wishes.deletes:
                await self._delete(job_id)

    async def _delete(self, job_id: UUID) -> None:
        with suppress(JobNotFound):
            await self._until_answered(
                "delete", lambda replica: replica.jobs.delete(job_id), job_id=job_id
            )

    async def _watch(self, job_id: UUID) -> None:
        """Watches to the end, on one replica after another."""
        seen, ended = 0, False
        while not ended:
            replica = self._loop.random.choice(self._replicas)
            watch = Watch(self._name, job_id, seen, self._loop.time())
            self._history.watches.append(watch)
            try:
                seen, ended = await self._read(watch, replica)
            except (Lost, *AWAY) as error:
                watch.error = error
                seen = watch.seen
                await asyncio.sleep(PAUSE * self._loop.random.random())
            except Exception as error:
                watch.error = error
                watch.outcome = Outcome.FAILED
                return

    async def _read(self, watch: Watch, replica: Replica) -> tuple[int, bool]:
        """Reads one stream; returns the last revision, and whether it was the job's end."""
        seen = watch.after_revision
        stream = self._calls.stream(replica.process, lambda: replica.watchers.watch(watch.of, seen))
        async with aclosing(stream) as responses:
            async for response in responses:
                told = WatchJobResponse.FromString(response)
                watch.messages.append(told)
                if told.HasField("event"):
                    watch.seen = told.event.revision
                    if self._loop.trace is not None:
                        self._loop.trace(f"{self._name} sees revision {watch.seen}")
                if self._loop.chance(self._wishes.cuts):
                    return watch.seen, False
        watch.outcome = Outcome.OK
        last = watch.messages[-1] if watch.messages else None
        return watch.seen, last is None or ends(last.event)

    async def _until_answered(self, kind: str, work: Work, **about: Any) -> Any:
        while True:
            replica = self._loop.random.choice(self._replicas)
            call = Call(self._name, kind, about, self._loop.time())
            try:
                return await recorded(
                    self._history,
                    call,
                    self._calls.unary(replica.process, lambda: work(replica), DEADLINE),  # noqa: B023
                )
            except Lost:
                await asyncio.sleep(PAUSE)

    async def _all(self, doing: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Does all at the same time. What one raises is raised when all have ended."""
        if len(doing) == 1:
            return [await doing[0]]
        ends = await asyncio.gather(*doing, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return ends

    def _request(self, method: str) -> RequestId:
        request_id = UUID(int=self._loop.random.getrandbits(128), version=4)
        return RequestId("default", method, request_id, self._name.encode())
