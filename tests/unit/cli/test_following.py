"""Watching a job on a server that goes away and comes back."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from steno.cli.connection import Services, connect
from steno.cli.failures import CliError, Exit
from steno.cli.following import follow, get_job
from steno.v1 import job_pb2, job_pb2_grpc


class Jobs(job_pb2_grpc.JobServiceServicer):
    """A job of four revisions, whose streams break after two."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.away = 0
        self.code = grpc.StatusCode.UNAVAILABLE

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        if self.away:
            self.away -= 1
            await context.abort(self.code, "away")
        return job_pb2.GetJobResponse(job=job_pb2.Job(job_id=request.job_id))

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        self.asked.append(request.after_revision)
        first = request.after_revision + 1
        for revision in range(first, min(first + 2, 5)):
            event = job_pb2.JobEvent(job_id=request.job_id, revision=revision)
            yield job_pb2.WatchJobResponse(event=event)
        if first + 2 < 5:
            await context.abort(self.code, "the server stops")


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
async def services(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")  # what a command sets must not outlast the test
    monkeypatch.setattr("steno.cli.connection._PAUSE_SECONDS", 0.01)
    server = grpc.aio.server()
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = argparse.Namespace(
        address=f"127.0.0.1:{port}", data_dir=None, tenant=None, tls=False, debug=False
    )
    async with connect(options) as services:
        yield services
    await server.stop(None)


async def revisions(services: Services, **options: Any) -> list[int]:
    return [message.event.revision async for message in follow(services, "a", **options)]


async def test_a_broken_stream_goes_on_after_the_last_revision_seen(
    jobs: Jobs, services: Services
) -> None:
    breaks: list[None] = []
    told: Callable[[], None] = lambda: breaks.append(None)  # noqa: E731

    assert await revisions(services, interrupted=told) == [1, 2, 3, 4]
    assert jobs.asked == [0, 2]
    assert len(breaks) == 1


async def test_a_watch_starts_where_another_one_ended(jobs: Jobs, services: Services) -> None:
    assert await revisions(services, after_revision=3) == [4]
    assert jobs.asked == [3]


async def test_a_service_that_was_there_is_waited_for(jobs: Jobs, services: Services) -> None:
    await get_job(services, "a")
    jobs.away = 12

    assert (await get_job(services, "a")).job_id == "a"


async def test_a_service_that_never_answered_is_given_up_at_once(
    jobs: Jobs, services: Services
) -> None:
    jobs.away = 1000

    with pytest.raises(CliError) as caught:
        await get_job(services, "a")

    assert caught.value.code is Exit.UNREACHABLE
    assert jobs.away > 990


async def test_a_service_that_stays_away_is_given_up(jobs: Jobs, services: Services) -> None:
    await get_job(services, "a")
    services.patience = 0.2
    jobs.away = 100_000

    with pytest.raises(CliError) as caught:
        await revisions(services)

    assert caught.value.code is Exit.UNREACHABLE


async def test_a_watch_of_a_job_that_is_gone_fails(jobs: Jobs, services: Services) -> None:
    jobs.code = grpc.StatusCode.NOT_FOUND

    with pytest.raises(CliError) as caught:
        await revisions(services)

    assert caught.value.code is Exit.FAILED
