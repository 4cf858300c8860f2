"""TaskService: what workers say, as calls of the store."""

from __future__ import annotations

from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from steno.job.messages import parse_failure, render_slice
from steno.job.store import Store
from steno.platform.interceptors import Context
from steno.speech import render_options
from steno.v1 import job_pb2 as pb
from steno.v1.job_pb2_grpc import TaskServiceServicer


class TaskServicer(TaskServiceServicer):
    """Parses, calls, renders."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def LeaseTask(
        self, request: pb.LeaseTaskRequest, context: Context
    ) -> pb.LeaseTaskResponse:
        """See the contract."""
        request_id = UUID(request.request_id) if request.request_id else None
        leased = await self._store.lease(UUID(request.task_id), request.worker_id, request_id)
        lease_duration = Duration()
        lease_duration.FromTimedelta(leased.lease)
        return pb.LeaseTaskResponse(
            job_id=str(leased.task.job_id),
            attempt=leased.task.attempt,
            lease_duration=lease_duration,
            slice=render_slice(leased.task.slice),
            config=render_options(leased.config.with_detected(leased.language_code)),
            alone=leased.task.alone,
        )

    async def RenewTask(
        self, request: pb.RenewTaskRequest, context: Context
    ) -> pb.RenewTaskResponse:
        """See the contract."""
        renewal = await self._store.renew(
            UUID(request.task_id),
            request.attempt,
            request.transcribed_sample_count,
            request.language_code,
        )
        return pb.RenewTaskResponse(
            cancelled=renewal.cancelled, language_code=renewal.language_code
        )

    async def CompleteTask(
        self, request: pb.CompleteTaskRequest, context: Context
    ) -> pb.CompleteTaskResponse:
        """See the contract."""
        await self._store.complete(
            UUID(request.task_id),
            request.attempt,
            request.transcript.language_code,
            request.transcript.SerializeToString(),
        )
        return pb.CompleteTaskResponse()

    async def FailTask(self, request: pb.FailTaskRequest, context: Context) -> pb.FailTaskResponse:
        """See the contract."""
        await self._store.fail(
            UUID(request.task_id),
            request.attempt,
            parse_failure(request.failure),
            request.message,
        )
        return pb.FailTaskResponse()
