"""Makes one job, however often the call is repeated: the request_id says that it is the same.

python examples/create_job_once.py AUDIO_ID
"""

import os
import sys
import uuid

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

# Keep the id with your own record of the recording, before the first try.
request = job_pb2.CreateJobRequest(audio_id=sys.argv[1], request_id=str(uuid.uuid4()))
with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    first = jobs.CreateJob(request).job
    again = jobs.CreateJob(request).job
    assert first.job_id == again.job_id
    print("job", again.job_id)
