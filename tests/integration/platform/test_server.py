"""What the platform does with every call, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from steno.platform import server
from steno.platform.access import Resource
from steno.platform.client import open_channel
from steno.platform.errors import ResourceExhausted, Violation, read_failure
from steno.platform.interceptors import HANDLED
from steno.platform.server import LIVENESS, Check, GrpcServer
from steno.platform.settings import ProcessSettings
from steno.v1 import job_pb2, job_pb2_grpc
from waiting import eventually

ID = "0193f0a0-0000-7000-8000-000000000001"
NAME = "steno.v1.JobService"


async def default_tenant(job_id: UUID) -> str:
    return "default"


OWN = Resource(default_tenant, KeyError)
"""Jobs that are all the default tenant's."""


class JobOnFire(Exception):
    reason = "JOB_ON_FIRE"
    metadata: ClassVar = {"heat": 451}


class Jobs(job_pb2_grpc.JobServiceServicer):
    """Raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception = AssertionError("not told")

    async def GetJob(self, request: Any, context: Any) -> job_pb2.GetJobResponse:
        raise self.error

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[job_pb2.WatchJobResponse]:
        yield job_pb2.WatchJobResponse()
        await asyncio.Event().wait()


def make_server(jobs: Jobs, *checks: Check) -> GrpcServer:
    settings = ProcessSettings(listen="127.0.0.1:0", shutdown_grace_seconds=5)
    server = GrpcServer(
        settings, [NAME], {JobOnFire: grpc.StatusCode.ABORTED}, checks, resources={"job_id": OWN}
    )
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server.server)
    return server


@asynccontextmanager
async def serving(jobs: Jobs, *checks: Check) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        make_server(jobs, *checks) as server,
        open_channel(f"127.0.0.1:{server.port}", retries=False) as channel,
    ):
        yield channel


async def failure_of(error: Exception) -> Any:
    jobs = Jobs()
    jobs.error = error
    async with serving(jobs) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await job_pb2_grpc.JobServiceStub(channel).GetJob(job_pb2.GetJobRequest(job_id=ID))
    return read_failure(caught.value)


async def test_a_domain_error_leaves_with_its_status_reason_and_metadata() -> None:
    failure = await failure_of(JobOnFire("it burns"))

    assert (failure.code, failure.message) == (grpc.StatusCode.ABORTED, "it burns")
    assert (failure.reason, failure.metadata) == ("JOB_ON_FIRE", {"heat": "451"})


async def test_a_request_without_audio_is_not_even_parsed_when_it_is_large() -> None:
    async with serving(Jobs()) as channel:
        batch: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/steno.v1.JobService/BatchCreateJobs"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await batch(b"\x0a\x00" * 2**20)

    failure = read_failure(caught.value)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MESSAGE_TOO_LARGE",
    )
    assert failure.message == f"the request has {2**21} bytes, at most {2**20} are allowed"


@pytest.mark.parametrize("malformed", [b"\xff\xff\xff", b"\x0a\x02\xff\xff"], ids=["bytes", "text"])
@pytest.mark.parametrize("method", ["GetJob", "WatchJob"])
async def test_a_request_that_is_no_message_is_the_callers_mistake(
    method: str, malformed: bytes
) -> None:
    async with serving(Jobs()) as channel:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            f"/steno.v1.JobService/{method}"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(malformed).read()

    failure = read_failure(caught.value)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_MESSAGE",
    )


async def test_overload_says_when_to_try_again() -> None:
    failure = await failure_of(ResourceExhausted("full", timedelta(seconds=7)))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_delay == timedelta(seconds=7)


async def test_an_unknown_error_is_internal_and_says_nothing_of_itself() -> None:
    failure = await failure_of(ValueError("the password is swordfish"))

    assert failure.code is grpc.StatusCode.INTERNAL
    assert "swordfish" not in failure.message


async def test_an_invalid_request_never_reaches_its_handler() -> None:
    async with serving(Jobs()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await job_pb2_grpc.JobServiceStub(channel).GetJob(job_pb2.GetJobRequest(job_id="x"))

    failure = read_failure(caught.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations == (
        Violation("job_id", "must be a UUID, such as the server hands out"),
    )


async def test_workers_are_served_though_clients_have_taken_all_their_room() -> None:
    class Tasks(job_pb2_grpc.TaskServiceServicer):
        async def RenewTask(self, request: Any, context: Any) -> job_pb2.RenewTaskResponse:
            return job_pb2.RenewTaskResponse(language_code="en")

    settings = ProcessSettings(listen="127.0.0.1:0", max_concurrent_calls=2)
    server = GrpcServer(settings, [NAME], {}, resources={"job_id": OWN})
    job_pb2_grpc.add_JobServiceServicer_to_server(Jobs(), server.server)
    job_pb2_grpc.add_TaskServiceServicer_to_server(Tasks(), server.server)
    async with (
        server,
        open_channel(f"127.0.0.1:{server.port}", retries=False) as channel,
    ):
        jobs = job_pb2_grpc.JobServiceStub(channel)
        watching = [jobs.WatchJob(job_pb2.WatchJobRequest(job_id=ID)) for _ in range(2)]
        for watch in watching:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await jobs.WatchJob(job_pb2.WatchJobRequest(job_id=ID)).read()
        renewed = await job_pb2_grpc.TaskServiceStub(channel).RenewTask(
            job_pb2.RenewTaskRequest(task_id=ID, attempt=1)
        )
        watching[0].cancel()

        async def room() -> bool:
            with suppress(grpc.aio.AioRpcError):
                return bool(await jobs.WatchJob(job_pb2.WatchJobRequest(job_id=ID)).read())
            return False

        assert await eventually(room)

    failure = read_failure(caught.value)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_CALLS",
    )
    assert failure.retry_delay is not None
    assert renewed.language_code == "en"


async def test_a_stopping_server_ends_streams_so_that_clients_go_elsewhere() -> None:
    async with AsyncExitStack() as server_stops:
        server = await server_stops.enter_async_context(make_server(Jobs()))
        async with open_channel(f"127.0.0.1:{server.port}", retries=False) as channel:
            stub = job_pb2_grpc.JobServiceStub(channel)
            watch = stub.WatchJob(job_pb2.WatchJobRequest(job_id=ID))
            await watch.read()
            await server_stops.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch.read()

    failure = read_failure(caught.value)
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.message == "the server is stopping; connect again"


async def test_no_call_fails_while_one_of_two_servers_stops() -> None:
    class Quick(Jobs):
        async def GetJob(self, request: Any, context: Any) -> job_pb2.GetJobResponse:
            await asyncio.sleep(0.005)
            return job_pb2.GetJobResponse()

    async def call_again_and_again(
        stub: "job_pb2_grpc.JobServiceAsyncStub", enough: asyncio.Event
    ) -> None:
        while not enough.is_set():
            await stub.GetJob(job_pb2.GetJobRequest(job_id=ID), timeout=30)

    answered = HANDLED.labels(NAME, "GetJob", "OK")

    def many_more(before: float) -> bool:
        return bool(answered._value.get() > before + 20)

    async with make_server(Quick()) as stays:
        for _ in range(3):  # it is a race: most calls are over when the server stops
            server_stops, enough, before = AsyncExitStack(), asyncio.Event(), answered._value.get()
            stops = await server_stops.enter_async_context(make_server(Quick()))
            both = f"ipv4:127.0.0.1:{stays.port},127.0.0.1:{stops.port}"
            async with open_channel(both) as channel, asyncio.TaskGroup() as calling:
                stub = job_pb2_grpc.JobServiceStub(channel)
                for _ in range(8):
                    calling.create_task(call_again_and_again(stub, enough))
                await eventually(partial(many_more, before))
                await server_stops.aclose()
                enough.set()


async def test_a_stream_is_closed_when_its_client_stops_reading_and_goes() -> None:
    closed = asyncio.Event()

    class Flood(Jobs):
        async def WatchJob(
            self, request: Any, context: Any
        ) -> AsyncIterator[job_pb2.WatchJobResponse]:
            event = job_pb2.JobEvent(job_id="x" * 100_000)
            try:
                while True:
                    yield job_pb2.WatchJobResponse(event=event)
            finally:
                closed.set()

    async with serving(Flood()) as channel:
        watch = job_pb2_grpc.JobServiceStub(channel).WatchJob(job_pb2.WatchJobRequest(job_id=ID))
        await watch.read()
        watch.cancel()
        async with asyncio.timeout(10):
            await closed.wait()


async def test_the_deadline_of_a_call_passes_down_to_the_calls_it_makes() -> None:
    class Last(Jobs):
        async def GetJob(self, request: Any, context: Any) -> job_pb2.GetJobResponse:
            assert context.time_remaining() is not None
            assert context.time_remaining() < 30  # it travels rounded up
            return job_pb2.GetJobResponse()

    async with serving(Last()) as beyond:

        class First(Jobs):
            async def GetJob(self, request: Any, context: Any) -> job_pb2.GetJobResponse:
                return await job_pb2_grpc.JobServiceStub(beyond).GetJob(request)

        async with serving(First()) as channel:
            stub = job_pb2_grpc.JobServiceStub(channel)
            await stub.GetJob(job_pb2.GetJobRequest(job_id=ID), timeout=20)


async def test_health_tells_when_something_behind_the_service_is_away() -> None:
    async def away() -> None:
        raise ConnectionError("nobody there")

    async with serving(Jobs(), away) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=NAME))

    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_turns_with_what_is_behind_the_service_and_one_that_hangs_hangs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(server, "_ANSWER_SECONDS", 0.05)
    hangs, hung, asked = False, asyncio.Event(), 0
    away = False

    async def hanging() -> None:
        nonlocal asked
        if hangs:
            asked += 1
            while not hung.is_set():
                with suppress(asyncio.CancelledError):  # as clients of some servers do
                    await hung.wait()

    async def other() -> None:
        if away:
            raise ConnectionError("nobody there")

    async with serving(Jobs(), hanging, other) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def is_ready() -> bool:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=NAME))
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        async def is_not_ready() -> bool:
            return not await is_ready()

        await eventually(is_ready)
        away = True
        await eventually(is_not_ready)
        away = False
        await eventually(is_ready)
        hangs = True
        await eventually(is_not_ready)
        await asyncio.sleep(0.2)  # it would be asked some more times
        assert asked == 1
        hangs = False
        hung.set()
        await eventually(is_ready)


async def test_a_check_that_hangs_ends_with_its_server() -> None:
    hangs, begun, ended = False, asyncio.Event(), asyncio.Event()

    async def hanging() -> None:
        if hangs:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with make_server(Jobs(), hanging):
        hangs = True
        await asyncio.wait_for(begun.wait(), 30)

    await asyncio.wait_for(ended.wait(), 5)


async def test_a_server_that_is_not_ready_is_alive_all_the_same() -> None:
    async def away() -> None:
        raise ConnectionError("nobody there")

    async with serving(Jobs(), away) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=LIVENESS))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services() -> None:
    async with serving(Jobs()) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]

    names = {service.name for service in answers[0].list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= names
