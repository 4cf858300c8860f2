"""Bad requests: each wrong field is named, and none is an internal error."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from steno.v1 import job_pb2 as pb
from steno.v1.transcript_pb2 import RecognitionConfig, SliceTranscript

from .conftest import Replica, refusal

ID = str(uuid.uuid4())
LONG = "x" * 5000

WRONG: list[tuple[str, Any, str]] = [
    ("CreateJob", pb.CreateJobRequest(), "audio_id"),
    ("CreateJob", pb.CreateJobRequest(audio_id="x"), "audio_id"),
    ("CreateJob", pb.CreateJobRequest(audio_id=ID, display_name=LONG), "display_name"),
    ("CreateJob", pb.CreateJobRequest(audio_id=ID, labels={"-": ""}), "labels['-']"),
    ("CreateJob", pb.CreateJobRequest(audio_id=ID, labels={"a": LONG}), "labels['a']"),
    ("CreateJob", pb.CreateJobRequest(audio_id=ID, request_id="x"), "request_id"),
    *(
        ("CreateJob", pb.CreateJobRequest(audio_id=ID, config=config), field)
        for config, field in [
            (RecognitionConfig(model="gpt"), "config.model"),
            (RecognitionConfig(model=LONG), "config.model"),
            (RecognitionConfig(language_code="English"), "config.language_code"),
            (RecognitionConfig(task=99), "config.task"),  # type: ignore[arg-type]
            (RecognitionConfig(hotwords=[LONG]), "config.hotwords[0]"),
            (RecognitionConfig(prompt=LONG), "config.prompt"),
        ]
    ),
    ("GetJob", pb.GetJobRequest(), "job_id"),
    ("GetJob", pb.GetJobRequest(job_id="x"), "job_id"),
    ("ListJobs", pb.ListJobsRequest(page_size=-1), "page_size"),
    ("ListJobs", pb.ListJobsRequest(page_size=1001), "page_size"),
    ("ListJobs", pb.ListJobsRequest(page_token="x"), "page_token"),
    ("ListJobs", pb.ListJobsRequest(states=[99]), "states[0]"),  # type: ignore[list-item]
    (
        "ListJobs",
        pb.ListJobsRequest(create_time_from=Timestamp(seconds=2**60)),
        "create_time_from",
    ),
    ("CancelJob", pb.CancelJobRequest(job_id="x"), "job_id"),
    ("RetryJob", pb.RetryJobRequest(job_id="x"), "job_id"),
    ("RetryJob", pb.RetryJobRequest(job_id=ID, request_id="x"), "request_id"),
    ("DeleteJob", pb.DeleteJobRequest(job_id="x"), "job_id"),
    ("GetTranscript", pb.GetTranscriptRequest(job_id="x"), "job_id"),
    ("GetTranscript", pb.GetTranscriptRequest(job_id=ID, format=99), "format"),  # type: ignore[arg-type]
    ("LeaseTask", pb.LeaseTaskRequest(task_id="x", worker_id="w"), "task_id"),
    ("LeaseTask", pb.LeaseTaskRequest(task_id=ID), "worker_id"),
    ("RenewTask", pb.RenewTaskRequest(task_id=ID), "attempt"),
    (
        "RenewTask",
        pb.RenewTaskRequest(task_id=ID, attempt=1, transcribed_sample_count=-1),
        "transcribed_sample_count",
    ),
    ("RenewTask", pb.RenewTaskRequest(task_id=ID, attempt=1, language_code="E"), "language_code"),
    ("CompleteTask", pb.CompleteTaskRequest(task_id=ID, attempt=1), "transcript"),
    (
        "CompleteTask",
        pb.CompleteTaskRequest(attempt=1, transcript=SliceTranscript()),
        "task_id",
    ),
    ("FailTask", pb.FailTaskRequest(task_id=ID, attempt=1), "failure"),
]


async def test_each_wrong_field_is_named(replica: Replica) -> None:
    for method, request, field in WRONG:
        stub = replica.tasks if method.endswith("Task") else replica.jobs

        failure = await refusal(getattr(stub, method)(request))

        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, (method, failure)
        assert [v.field for v in failure.violations] == [field], method


async def test_a_watcher_with_wrong_fields_is_refused(replica: Replica) -> None:
    async def first(request: pb.WatchJobRequest) -> None:
        await anext(aiter(replica.jobs.WatchJob(request)))

    for request, field in [
        (pb.WatchJobRequest(job_id="x"), "job_id"),
        (pb.WatchJobRequest(job_id=ID, after_revision=-1), "after_revision"),
    ]:
        failure = await refusal(first(request))
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in failure.violations] == [field]


async def test_reflection_lists_both_services(replica: Replica) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(replica.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    async for answer in stub.ServerReflectionInfo(iter([question])):
        names = {service.name for service in answer.list_services_response.service}

    assert {"steno.v1.JobService", "steno.v1.TaskService"} <= names
