"""Which answers say something about a task, and which only that the job service is away."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from grpc import StatusCode
from grpc.aio import Metadata

from steno.platform.errors import InvalidArgument, ResourceExhausted, Unavailable, to_status
from steno.transcription.lease import is_away


def received(code: StatusCode, details: str) -> grpc.aio.AioRpcError:
    """As gRPC itself says it, without a reason."""
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(), details)


def answered(error: Exception) -> grpc.aio.AioRpcError:
    """As the job service says it."""
    status = to_status(error, {})
    [code] = [code for code in StatusCode if code.value[0] == status.code]
    trailing = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, Metadata(), trailing, status.message)


@pytest.mark.parametrize(
    "error",
    [
        received(StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"),
        received(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        received(StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"),
        received(StatusCode.CANCELLED, "the server stops"),
        received(StatusCode.INTERNAL, "Internal error from Core"),
        received(StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        received(StatusCode.UNKNOWN, "Stream removed"),
        answered(Unavailable("the database does not answer; try again")),
        answered(ResourceExhausted("too many calls at once", timedelta(seconds=1))),
    ],
    ids=lambda error: error.details(),
)
def test_what_says_nothing_about_the_task_is_away(error: grpc.aio.AioRpcError) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        answered(InvalidArgument.of("transcript", "is required")),
        answered(RuntimeError("a bug")),
        received(
            StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (13000000 vs. 12582912)",
        ),
    ],
    ids=lambda error: error.details(),
)
def test_what_each_repeat_would_get_again_is_not(error: grpc.aio.AioRpcError) -> None:
    assert not is_away(error)
