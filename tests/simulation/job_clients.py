"""Callers of JobService: each has a job made, and follows it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from simulation.calls import Lost
from simulation.clients import PAUSE, Caller, Work
from simulation.history import AWAY, Outcome, Watch
from simulation.job_service import Replica
from steno.job.domain import (
    AudioNotFound,
    AudioRejected,
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
from steno.transcript import Options
from steno.v1.job_pb2 import WatchJobResponse


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
    config: Options
    asked_at_once: int = 1
    watchers: int = 1
    cuts: float = 0.0
    cancels: float | None = None
    deadline: float | None = None
    allow_gaps: bool = False
    retries: bool = False
    deletes: bool = False


class Client(Caller):
    """A caller, and its watchers."""

    deadline = 3.0

    def __init__(self, *caller: Any, wishes: Wishes) -> None:
        """Takes what a `Caller` does, and what is wanted."""
        super().__init__(*caller)
        self._wishes = wishes

    async def run(self) -> None:
        """Sees to a job until nothing more is to come of it."""
        await self.pause(0.2)
        wishes = self._wishes
        request = self._request("CreateJob")
        deadline = None
        if wishes.deadline is not None:
            deadline = self.loop.now + timedelta(seconds=wishes.deadline)
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
            self.until_answered(kind, work, request=request, **about)
            for work in ways[: self._wishes.asked_at_once]
        ]
        jobs: list[Job] = await self._all(asking)
        return jobs[0]

    async def _see_to(self, job_id: UUID) -> None:
        watching = [self._watch(job_id) for _ in range(self._wishes.watchers)]
        await self._all([*watching, self._cancel(job_id), self._follow(job_id)])
        for _ in range(1 + self.loop.chance(0.3)):
            with suppress(JobNotFound, JobNotSucceeded, JobNotEnded):
                await self.until_answered(
                    "transcript",
                    lambda replica: replica.transcript(job_id, allow_partial=False),
                    job_id=job_id,
                )
        if self._wishes.deletes:
            await self._delete(job_id)
            with suppress(JobNotFound):
                await self.until_answered(
                    "get", lambda replica: replica.jobs.get(job_id), job_id=job_id
                )

    async def _follow(self, job_id: UUID) -> None:
        """Asks now and then where the job stands."""
        for _ in range(int(3 * self.loop.random.random())):
            await self.pause(0.5)
            with suppress(JobNotFound):
                await self.until_answered(
                    "get", lambda replica: replica.jobs.get(job_id), job_id=job_id
                )

    async def _cancel(self, job_id: UUID) -> None:
        if self._wishes.cancels is None:
            return
        await asyncio.sleep(self._wishes.cancels)
        with suppress(JobEnded, JobNotFound):
            await self.until_answered(
                "cancel", lambda replica: replica.jobs.cancel(job_id), job_id=job_id
            )
            if self._wishes.deletes:
                await self._delete(job_id)

    async def _delete(self, job_id: UUID) -> None:
        with suppress(JobNotFound):
            await self.until_answered(
                "delete", lambda replica: replica.jobs.delete(job_id), job_id=job_id
            )

    async def _watch(self, job_id: UUID) -> None:
        """Watches to the end, on one replica after another."""
        seen, ended = 0, False
        while not ended:
            replica = self.replica()
            watch = Watch(self.name, job_id, seen, self.loop.time())
            self.history.watches.append(watch)
            try:
                seen, ended = await self._read(watch, replica)
            except (Lost, *AWAY) as error:
                watch.error = error
                seen = watch.seen
                await self.pause(PAUSE)
            except Exception as error:
                watch.error = error
                watch.outcome = Outcome.FAILED
                return

    async def _read(self, watch: Watch, replica: Replica) -> tuple[int, bool]:
        """Reads one stream; returns the last revision, and whether it was the job's end."""
        seen = watch.after_revision
        stream = self.calls.stream(replica.process, lambda: replica.watchers.watch(watch.of, seen))
        async with aclosing(stream) as responses:
            async for response in responses:
                told = WatchJobResponse.FromString(response)
                watch.messages.append(told)
                if told.HasField("event"):
                    watch.seen = told.event.revision
                    if self.loop.trace is not None:
                        self.loop.trace(f"{self.name} sees revision {watch.seen}")
                if self.loop.chance(self._wishes.cuts):
                    return watch.seen, False
        watch.outcome = Outcome.OK
        last = watch.messages[-1] if watch.messages else None
        return watch.seen, last is None or ends(last.event)

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
        request_id = UUID(int=self.loop.random.getrandbits(128), version=4)
        return RequestId("default", method, request_id, self.name.encode())
