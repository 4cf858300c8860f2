"""What callers can do with jobs: all of JobService but WatchJob goes through `Jobs`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from steno.job.audio import AudioSource
from steno.job.domain import (
    Audio,
    AudioNotFound,
    AudioRejected,
    AudioState,
    Job,
    JobFilter,
    JobNotRetryable,
    NewJob,
    RequestId,
    Standing,
)
from steno.job.paging import DEFAULT_PAGE_SIZE, read_token, token_after
from steno.job.store import Joined, Store
from steno.platform.ending import ended
from steno.platform.errors import InvalidArgument, ResourceExhausted
from steno.transcript import SAMPLE_RATE

FETCHES_AT_ONCE = 16
"""Audio that one call asks the upload service for at the same time."""

MOST_SLICES_AT_ONCE = 10_000
"""Of the jobs that a call of BatchCreateJobs makes, in one transaction: it takes some seconds."""

FULL_RETRY_DELAY = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait or run at once.

    They are checked before the transaction that makes a job: to be exact they would need a lock
    that all creations wait for. Calls of the same moment may exceed them, by as many as they make.

    Attributes:
        unfinished: jobs.
        queued_hours: of audio; while there is more, no job is taken.
    """

    unfinished: int
    queued_hours: float

    def check(self, jobs: int, samples: int, whose: str) -> None:
        """Raises ResourceExhausted, which says when to come again."""
        if jobs > self.unfinished:
            raise ResourceExhausted(f"too many jobs wait already{whose}", FULL_RETRY_DELAY)
        if samples >= self.queued_hours * 3600 * SAMPLE_RATE:
            raise ResourceExhausted(
                f"too many hours of audio wait already{whose}", FULL_RETRY_DELAY
            )


class _Wanted(NamedTuple):
    """A job that is asked for, and where its fields stand in the request."""

    new: NewJob
    request: RequestId | None
    at: str = ""


class Jobs:
    """The jobs, for callers."""

    def __init__(
        self,
        store: Store,
        audio: AudioSource,
        models: Sequence[str],
        limits: Limits,
        tenant_limits: Limits,
        longest_wait: timedelta,
    ) -> None:
        """Takes what it works with.

        Args:
            store: where jobs are kept.
            audio: the upload service.
            models: what may be asked for; the first when nothing is.
            limits: of all tenants together.
            tenant_limits: of each.
            longest_wait: how far ahead a job's `not_before` may lie.
        """
        self._store = store
        self._audio = audio
        self._models = models
        self._limits = limits
        self._tenant_limits = tenant_limits
        self._longest_wait = longest_wait

    async def create(self, new: NewJob, request: RequestId | None) -> Job:
        """Makes a job. A repeat answers the same job, whatever became of the audio since.

        Raises:
            AudioNotFound: there is no such audio.
            AudioRejected: it can't be decoded.
            InvalidArgument: the model is not offered, the deadline can't be met, or `not_before`
                is too far ahead.
            ResourceExhausted: too many jobs wait already.
            RequestIdReused: the request_id was used with another body.
        """
        [job] = await self._create([_Wanted(new, request)], None)
        return job

    async def create_all(self, wanted: Sequence[tuple[NewJob, RequestId | None]]) -> list[Job]:
        """Makes several jobs, all or none, and answers them in order. See `create`.

        Raises:
            InvalidArgument: also if a request_id comes twice, or there is too much to make.
        """
        uses = Counter(request.request_id for _, request in wanted if request is not None)
        for place, (_, request) in enumerate(wanted):
            if request is not None and uses[request.request_id] > 1:
                raise InvalidArgument.of(f"requests[{place}].request_id", "comes more than once")
        return await self._create(
            [_Wanted(*each, f"requests[{place}].") for place, each in enumerate(wanted)],
            MOST_SLICES_AT_ONCE,
        )

    async def _create(self, wanted: Sequence[_Wanted], most_slices: int | None) -> list[Job]:
        made = [await self._made_before(each.request) for each in wanted]
        missing = [
            self._checked(each) for each, job in zip(wanted, made, strict=True) if job is None
        ]
        for tenant, count in Counter(each.new.tenant for each in missing).items():
            await self._check_room(tenant, count)
        audio = await self._usable_all([(each.new.audio_id, each.new.tenant) for each in missing])
        slices = sum(len(each.slices) for each in audio)
        if most_slices is not None and slices > most_slices:
            raise InvalidArgument.of(
                "requests",
                f"have {slices} slices to transcribe, of at most {most_slices}; make fewer"
                " jobs at once",
            )
        created = iter(
            await self._store.create_all(
                [(each.new, one, each.request) for each, one in zip(missing, audio, strict=True)]
            )
        )
        return [job or next(created) for job in made]

    async def retry(self, job_id: UUID, request: RequestId | None) -> Job:
        """Makes a job that does what another one left undone.

        Raises:
            JobNotRetryable: that one did not fail, or its audio is gone.
            ResourceExhausted: too many jobs wait already.
            RequestIdReused: the request_id was used with another body.
        """
        job = await self._made_before(request)
        if job is None:
            before = await self._store.get(job_id)
            before.check_retryable()
            await self._check_room(before.tenant)
            try:
                audio = await self._usable(before.audio_id, before.tenant)
            except (AudioNotFound, AudioRejected) as error:
                raise JobNotRetryable(job_id, str(error)) from error
            job = await self._store.create(before.as_new(), audio, request)
        return job

    async def get(self, job_id: UUID) -> Standing:
        """Returns a job and where it stands in the queue."""
        return await self._store.standing(job_id)

    async def page(self, where: JobFilter, size: int, token: str) -> tuple[list[Job], str]:
        """Returns jobs, newest first, and the token of the next page or "".

        Raises:
            InvalidArgument: the token is none, or belongs to another filter.
        """
        size = size or DEFAULT_PAGE_SIZE
        jobs = await self._store.page(where, size + 1, read_token(token, where))
        more = len(jobs) > size
        return jobs[:size], token_after(jobs[size - 1], where) if more else ""

    async def cancel(self, job_id: UUID) -> Job:
        """Ends a job; what is done stays.

        Raises:
            JobEnded: it has succeeded or failed already.
        """
        return await self._store.cancel(job_id)

    async def delete(self, job_id: UUID) -> None:
        """Removes a job that has ended.

        Raises:
            JobNotEnded: it has not.
        """
        await self._store.delete(job_id)

    async def transcript(self, job_id: UUID, allow_partial: bool) -> Joined:
        """Returns what is transcribed: all of it, or a part if that will do.

        Raises:
            JobNotEnded: the job still runs.
            JobNotSucceeded: it failed or was cancelled.
        """
        job = await self._store.get(job_id)
        job.check_readable(allow_partial)
        return await self._store.joined(job)

    async def _made_before(self, request: RequestId | None) -> Job | None:
        return None if request is None else await self._store.find(request)

    async def _usable(self, audio_id: UUID, tenant: str) -> Audio:
        audio = await self._audio.fetch(audio_id)
        if audio.tenant not in (tenant, ""):  # the version before does not say
            raise AudioNotFound(audio_id)
        if audio.state is AudioState.REJECTED:
            raise AudioRejected(audio)
        return audio

    async def _usable_all(self, wanted: Sequence[tuple[UUID, str]]) -> list[Audio]:
        """Asks for several audio of tenants at once, once for each.

        Nobody is asked any more once one can't be used.
        """
        limit = asyncio.Semaphore(FETCHES_AT_ONCE)

        async def usable(audio_id: UUID, tenant: str) -> Audio:
            async with limit:
                return await self._usable(audio_id, tenant)

        fetching = {each: asyncio.create_task(usable(*each)) for each in dict.fromkeys(wanted)}
        try:
            await asyncio.gather(*fetching.values())
        finally:
            await ended(*fetching.values())
        return [fetching[each].result() for each in wanted]

    async def _check_room(self, tenant: str, more: int = 1) -> None:
        load, load_of_tenant = await self._store.load(tenant)
        self._limits.check(load.jobs + more, load.samples, "")
        self._tenant_limits.check(
            load_of_tenant.jobs + more, load_of_tenant.samples, f" for tenant {tenant}"
        )

    def _checked(self, wanted: _Wanted) -> _Wanted:
        """Refuses what can't be met; the model is the first one where none is named."""
        self._check_times(wanted.new, wanted.at)
        name = wanted.new.config.model or self._models[0]
        if name not in self._models:
            raise InvalidArgument.of(
                f"{wanted.at}config.model",
                f"{name!r} is not served; available: {', '.join(self._models)}",
            )
        config = replace(wanted.new.config, model=name)
        return wanted._replace(new=replace(wanted.new, config=config))

    def _check_times(self, new: NewJob, at: str) -> None:
        """Refuses a deadline that is over before anything can be done, and too long a wait."""
        now = datetime.now(UTC)
        if new.not_before is not None and new.not_before > now + self._longest_wait:
            days = self._longest_wait / timedelta(days=1)
            raise InvalidArgument.of(
                f"{at}not_before", f"must be at most {days:g} days ahead; make the job later"
            )
        if new.deadline is None:
            return
        if new.deadline <= now:
            raise InvalidArgument.of(f"{at}deadline", "has passed already")
        if new.not_before is not None and new.deadline <= new.not_before:
            raise InvalidArgument.of(f"{at}deadline", "must be after not_before")
