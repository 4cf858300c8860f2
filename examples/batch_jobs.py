"""Makes jobs for many recordings in one call, all or none, with labels to find them by.

python examples/batch_jobs.py AUDIO_ID...
"""

import os
import sys

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

with grpc.insecure_channel(JOB) as channel:
    requests = [
        job_pb2.CreateJobRequest(
            audio_id=audio_id,
            labels={"project": "archive"},
            priority=job_pb2.JOB_PRIORITY_LOW,
        )
        for audio_id in sys.argv[1:]
    ]
    request = job_pb2.BatchCreateJobsRequest(requests=requests)
    for job in JobServiceStub(channel).BatchCreateJobs(request).jobs:
        print("job", job.job_id)
