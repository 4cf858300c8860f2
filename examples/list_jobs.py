"""Lists jobs by label and state, page by page, the newest first.

python examples/list_jobs.py project archive
"""

import os
import sys

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

key, value = sys.argv[1:]
request = job_pb2.ListJobsRequest(page_size=100, labels={key: value})
with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    while True:
        page = jobs.ListJobs(request)
        for job in page.jobs:
            print(job.job_id, job_pb2.JobState.Name(job.state), f"{job.progress.fraction:.0%}")
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
