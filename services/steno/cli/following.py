"""Watching jobs and sessions to their end, over as many connections as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from steno.v1.concatenation_pb2 import (
    GetSessionRequest,
    Session,
    WatchSessionRequest,
    WatchSessionResponse,
)
from steno.v1.job_pb2 import GetJobRequest, Job, WatchJobRequest, WatchJobResponse

if TYPE_CHECKING:
    from steno.cli.connection import Services

Told = TypeVar("Told", WatchJobResponse, WatchSessionResponse)


async def follow(
    services: Services,
    job_id: str,
    interrupted: Callable[[], None] = lambda: None,
    *,
    after_revision: int = 0,
) -> AsyncIterator[WatchJobResponse]:
    """Yields what WatchJob tells, each revision once, until the job has ended.

    When the stream breaks it is opened again after the last revision seen.

    Args:
        services: where to ask.
        job_id: the job.
        interrupted: told when the stream has broken.
        after_revision: last revision that is known already.

    Raises CliError when there is no such job, or the service stays away.
    """
    stub = await services.jobs()

    def watch(seen: int) -> AsyncIterable[WatchJobResponse]:
        return stub.WatchJob(WatchJobRequest(job_id=job_id, after_revision=seen))

    # Looking waits, but not for ever, until somebody is there.
    look = partial(get_job, services, job_id)
    async for response in _resumed(services, "job", watch, look, interrupted, after_revision):
        yield response


async def follow_session(
    services: Services,
    session_id: str,
    interrupted: Callable[[], None] = lambda: None,
    *,
    after_revision: int = 0,
) -> AsyncIterator[WatchSessionResponse]:
    """Yields what WatchSession tells, each revision once, until nothing more can happen.

    Arguments and errors are those of `follow`.
    """
    stub = await services.sessions()

    def watch(seen: int) -> AsyncIterable[WatchSessionResponse]:
        return stub.WatchSession(WatchSessionRequest(session_id=session_id, after_revision=seen))

    look = partial(get_session, services, session_id)
    async for response in _resumed(
        services, "concatenation", watch, look, interrupted, after_revision
    ):
        yield response


async def _resumed(
    services: Services,
    service: str,
    watch: Callable[[int], AsyncIterable[Told]],
    look: Callable[[], Awaitable[object]],
    interrupted: Callable[[], None],
    seen: int,
) -> AsyncIterator[Told]:
    while True:
        try:
            async for response in watch(seen):
                services.answered = True
                if response.HasField("event"):
                    seen = response.event.revision
                yield response
            return
        except Exception as error:
            pause = services.pause_after(service, error)
        interrupted()
        await asyncio.sleep(pause)
        await look()


async def get_job(services: Services, job_id: str) -> Job:
    """Returns a job. Raises CliError."""
    stub = await services.jobs()
    return (await services.call("job", stub.GetJob, GetJobRequest(job_id=job_id))).job


async def get_session(services: Services, session_id: str) -> Session:
    """Returns a session. Raises CliError."""
    stub = await services.sessions()
    request = GetSessionRequest(session_id=session_id)
    return (await services.call("concatenation", stub.GetSession, request)).session
