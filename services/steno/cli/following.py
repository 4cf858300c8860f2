"""Watching a job to its end, over as many connections as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from steno.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    GetJobRequest,
    Job,
    WatchJobRequest,
    WatchJobResponse,
)

if TYPE_CHECKING:
    from steno.cli.connection import Services

ENDED = (JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED)


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
    seen, ended = after_revision, False
    clock = asyncio.get_running_loop().time
    give_up = clock() + services.patience
    while not ended:
        try:
            request = WatchJobRequest(job_id=job_id, after_revision=seen)
            async for response in stub.WatchJob(request):
                services.answered = True
                give_up = clock() + services.patience
                if response.HasField("event"):
                    seen = response.event.revision
                    change = response.event
                    ended = change.HasField("state_changed") and change.state_changed.state in ENDED
                yield response
            return
        except Exception as error:
            pause = services.pause_after("job", error)
            if clock() + pause > give_up:
                raise services.explain("job", error) from error
            interrupted()
            await asyncio.sleep(pause)


async def get_job(services: Services, job_id: str) -> Job:
    """Returns a job. Raises CliError."""
    stub = await services.jobs()
    return (await services.call("job", stub.GetJob, GetJobRequest(job_id=job_id))).job
