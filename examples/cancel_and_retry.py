"""Cancels a job, and has another one do what it left undone.

python examples/cancel_and_retry.py JOB_ID
"""

import os
import sys

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    cancelled = jobs.CancelJob(job_pb2.CancelJobRequest(job_id=sys.argv[1])).job
    print(cancelled.job_id, job_pb2.JobState.Name(cancelled.state))
    retried = jobs.RetryJob(job_pb2.RetryJobRequest(job_id=cancelled.job_id)).job
    print(retried.job_id, "goes on from", f"{retried.progress.fraction:.0%}")
