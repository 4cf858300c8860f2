"""A task that this worker holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from steno.platform.errors import AWAY_CODES, read_failure
from steno.platform.leases import kept, until_answered
from steno.platform.messaging import Postponed
from steno.v1 import job_pb2 as pb
from steno.v1 import transcript_pb2
from steno.v1.events_pb2 import TaskMessage

if TYPE_CHECKING:
    from steno.v1.job_pb2_grpc import TaskServiceAsyncStub

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Message)

CALL_SECONDS = 10.0
"""Patience for one call; calls that are safe to repeat are repeated after it."""

TAKE_SECONDS = 20.0
"""Patience for a lease; after it the message comes again, perhaps to another worker."""

LEASED_ELSEWHERE_SECONDS = 5.0
"""When to look again at a task that another worker holds."""

HAND_BACK_SECONDS = 3.0
"""Patience for giving a task back while stopping; without an answer the lease runs out."""


def is_away(error: Exception) -> bool:
    """Says nothing about the task: the service was not reached, or could not do it just now.

    What the service itself answers has a reason. What has none comes from gRPC or from the way
    there, such as a connection that broke or a server whose calls are all taken.
    """
    if not isinstance(error, grpc.aio.AioRpcError):
        return False
    failure = read_failure(error)
    if "larger than max" in failure.message:
        return False  # gRPC would say so of each repeat
    return failure.code in AWAY_CODES or not failure.reason


class LeaseLost(Exception):
    """The task is not ours any more: it was cancelled, or another worker has it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


async def take_lease(
    tasks: TaskServiceAsyncStub, message: TaskMessage, worker_id: str, report_seconds: float
) -> Lease | None:
    """Leases a task; None when there is nothing to do for it any more.

    Raises:
        Postponed: another worker holds it, or the job service stays away.
    """
    request = pb.LeaseTaskRequest(
        task_id=message.task_id, worker_id=worker_id, request_id=str(uuid4())
    )
    try:
        async with asyncio.timeout(TAKE_SECONDS):
            leased = await until_answered(
                lambda: tasks.LeaseTask(request, timeout=CALL_SECONDS), is_away
            )
    except TimeoutError:
        raise Postponed("the job service does not answer", 1.0) from None
    except grpc.aio.AioRpcError as error:
        reason = read_failure(error).reason
        if reason in ("TASK_NOT_FOUND", "TASK_NOT_PENDING"):
            return None
        if reason == "TASK_LEASED":
            raise Postponed("another worker holds the task", LEASED_ELSEWHERE_SECONDS) from None
        raise
    return Lease(tasks, message, leased, report_seconds)


class Lease:
    """A leased task. What it tells the job service is fenced by its token.

    Attributes:
        job_id: whose task it is.
        attempt: the token: how often the task was leased, from 1.
        slice: what to transcribe.
        config: how.
        alone: nothing else is to be worked on meanwhile.
        only_task: the job has no other.
        transcribed_sample_count: how far the work is; told with each renewal.
    """

    def __init__(
        self,
        tasks: TaskServiceAsyncStub,
        message: TaskMessage,
        leased: pb.LeaseTaskResponse,
        report_seconds: float,
    ) -> None:
        self.slice = leased.slice
        self.config = leased.config
        self.alone = leased.alone
        self.only_task = leased.only_task
        self.transcribed_sample_count = 0
        self._tasks = tasks
        self._task_id = message.task_id
        self.job_id = message.job_id
        self.attempt = leased.attempt
        lease_seconds = leased.lease_duration.ToTimedelta().total_seconds()
        self._renew_seconds = min(report_seconds, lease_seconds / 3)
        # An answer that never comes must leave time for another try.
        self._renew_patience_seconds = min(CALL_SECONDS, lease_seconds / 3)

    def held(self) -> AbstractAsyncContextManager[None]:
        """Renews the lease while the body runs; stops the body when the lease is lost.

        Only the job service can say that the lease is lost: without its answer the work goes on.

        Raises:
            LeaseLost: the task is not ours any more.
        """
        return kept(self.renew, self._renew_seconds, LeaseLost, stops_work=True)

    async def renew(self, language: str = "") -> str:
        """Tells progress, and the language once it is detected; returns the job's language.

        Raises:
            LeaseLost: the task is not ours any more.
        """
        request = pb.RenewTaskRequest(
            task_id=self._task_id,
            attempt=self.attempt,
            transcribed_sample_count=self.transcribed_sample_count,
            language_code=language,
        )
        renewed = await self._fenced(
            self._tasks.RenewTask(request, timeout=self._renew_patience_seconds)
        )
        if renewed.cancelled:
            raise LeaseLost("cancelled")
        return renewed.language_code

    async def agree_on_language(self, detected: str) -> str:
        """Tells the language that was heard; returns the one that holds for the whole job.

        Raises:
            LeaseLost: the task is not ours any more.
        """
        return await until_answered(lambda: self.renew(detected), is_away) or detected

    async def complete(self, transcript: transcript_pb2.SliceTranscript) -> None:
        """Stores the result; goes on trying while the job service is away.

        Raises:
            LeaseLost: the task is not ours any more.
        """
        request = pb.CompleteTaskRequest(
            task_id=self._task_id, attempt=self.attempt, transcript=transcript
        )
        await until_answered(
            lambda: self._fenced(self._tasks.CompleteTask(request, timeout=CALL_SECONDS)), is_away
        )

    async def fail(self, failure: pb.TaskFailure.ValueType, message: str) -> None:
        """Gives the task back; goes on trying while the job service is away.

        Raises:
            LeaseLost: the task is not ours any more.
        """
        request = pb.FailTaskRequest(
            task_id=self._task_id, attempt=self.attempt, failure=failure, message=message[:2000]
        )
        await until_answered(
            lambda: self._fenced(self._tasks.FailTask(request, timeout=CALL_SECONDS)), is_away
        )

    async def hand_back(self) -> None:
        """Gives the task back untouched because this worker stops. Best effort."""
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self.fail(pb.TASK_FAILURE_HANDED_BACK, "the worker stops")
        except (TimeoutError, LeaseLost, grpc.aio.AioRpcError) as error:
            log.warning("not handed back: %r", error, extra={"action": "hand_back"})

    async def _fenced(self, call: Awaitable[R]) -> R:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if read_failure(error).reason == "STALE_LEASE":
                raise LeaseLost("stale") from None
            raise
