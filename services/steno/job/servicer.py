"""JobService for callers, TaskService for workers: each parses a request, calls, and renders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import grpc
from google.protobuf.duration_pb2 import Duration

from steno.job import domain
from steno.job.domain import Standing
from steno.job.jobs import Jobs
from steno.job.messages import (
    parse_failure,
    parse_filter,
    parse_new_job,
    parse_request_id,
    render_job,
    render_slice,
)
from steno.job.store import Store
from steno.job.transcripts import Transcripts
from steno.job.watch import Watchers
from steno.platform.errors import StatusTable
from steno.platform.interceptors import Context
from steno.speech import render_options
from steno.v1 import job_pb2 as pb
from steno.v1.job_pb2_grpc import JobServiceServicer, TaskServiceServicer

STATUS_OF: StatusTable = {
    domain.JobNotFound: grpc.StatusCode.NOT_FOUND,
    domain.TaskNotFound: grpc.StatusCode.NOT_FOUND,
    domain.AudioNotFound: grpc.StatusCode.NOT_FOUND,
    domain.AudioRejected: grpc.StatusCode.FAILED_PRECONDITION,
    domain.JobEnded: grpc.StatusCode.FAILED_PRECONDITION,
    domain.JobNotEnded: grpc.StatusCode.FAILED_PRECONDITION,
    domain.JobNotSucceeded: grpc.StatusCode.FAILED_PRECONDITION,
    domain.JobNotRetryable: grpc.StatusCode.FAILED_PRECONDITION,
    domain.TaskNotPending: grpc.StatusCode.FAILED_PRECONDITION,
    domain.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    domain.TaskLeased: grpc.StatusCode.ABORTED,
    domain.StaleLease: grpc.StatusCode.ABORTED,
}


class JobServicer(JobServiceServicer):
    """What callers ask, as calls of Jobs and Watchers."""

    def __init__(self, jobs: Jobs, watchers: Watchers, transcripts: Transcripts) -> None:
        self._jobs = jobs
        self._watchers = watchers
        self._transcripts = transcripts

    async def CreateJob(
        self, request: pb.CreateJobRequest, context: Context
    ) -> pb.CreateJobResponse:
        """See the contract."""
        job = await self._jobs.create(parse_new_job(request), parse_request_id(request))
        return pb.CreateJobResponse(job=render_job(Standing(job)))

    async def BatchCreateJobs(
        self, request: pb.BatchCreateJobsRequest, context: Context
    ) -> pb.BatchCreateJobsResponse:
        """See the contract."""
        jobs = await self._jobs.create_all(
            [(parse_new_job(each), parse_request_id(each)) for each in request.requests]
        )
        return pb.BatchCreateJobsResponse(jobs=[render_job(Standing(job)) for job in jobs])

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """See the contract."""
        standing = await self._jobs.get(UUID(request.job_id))
        return pb.GetJobResponse(job=render_job(standing))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """See the contract."""
        jobs, token = await self._jobs.page(
            parse_filter(request), request.page_size, request.page_token
        )
        return pb.ListJobsResponse(
            jobs=[render_job(Standing(job)) for job in jobs], next_page_token=token
        )

    def WatchJob(  # type: ignore[override]  # what it yields is encoded already
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """See the contract."""
        return self._watchers.watch(UUID(request.job_id), request.after_revision)

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """See the contract."""
        job = await self._jobs.cancel(UUID(request.job_id))
        return pb.CancelJobResponse(job=render_job(Standing(job)))

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        """See the contract."""
        job = await self._jobs.retry(UUID(request.job_id), parse_request_id(request))
        return pb.RetryJobResponse(job=render_job(Standing(job)))

    async def DeleteJob(
        self, request: pb.DeleteJobRequest, context: Context
    ) -> pb.DeleteJobResponse:
        """See the contract."""
        await self._jobs.delete(UUID(request.job_id))
        return pb.DeleteJobResponse()

    async def GetTranscript(  # type: ignore[override]  # what it returns is encoded already
        self, request: pb.GetTranscriptRequest, context: Context
    ) -> bytes:
        """See the contract."""
        joined = await self._jobs.transcript(UUID(request.job_id), request.allow_partial)
        return await self._transcripts.render(
            joined, request.format, include_dropped=request.include_dropped
        )


class TaskServicer(TaskServiceServicer):
    """What workers say, as calls of the store: there are no steps between."""

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
            config=render_options(leased.job.config.with_detected(leased.job.language_code)),
            alone=leased.task.alone,
            only_task=leased.job.has_one_task,
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
