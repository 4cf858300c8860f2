"""Watching a job to its end, over as many connections as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from steno.v1.job_pb2 import GetJobRequest, Job, WatchJobRequest, WatchJobResponse

if TYPE_CHECKING:
    from steno.cli.connection import Services


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
    seen = after_revision
    while True:
        try:
            request = WatchJobRequest(job_id=job_id, after_revision=seen)
            async for response in stub.WatchJob(request):
                services.answered = True
                if response.HasField("event"):
                    seen = response.event.revision
                yield response
            return
        except Exception as error:
            pause = services.pause_after("job", error)
        interrupted()
        await asyncio.sleep(pause)
        await get_job(services, job_id)  # waits, but not for ever, until somebody is there


async def get_job(services: Services, job_id: str) -> Job:
    """Returns a job. Raises CliError."""
    stub = await services.jobs()
    return (await services.call("job", stub.GetJob, GetJobRequest(job_id=job_id))).job
