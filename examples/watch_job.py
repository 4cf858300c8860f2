"""Follows a job to its end, through broken connections and restarts of the server.

python examples/watch_job.py JOB_ID
"""

import os
import sys
import time

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

revision = 0  # of the last event that was seen: any replica goes on behind it
with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    while True:
        try:
            request = job_pb2.WatchJobRequest(job_id=sys.argv[1], after_revision=revision)
            for response in jobs.WatchJob(request):
                event = response.event
                if not response.HasField("event"):
                    continue  # a status: how far it is, until the next event
                revision = event.revision
                if event.HasField("state_changed"):
                    print(job_pb2.JobState.Name(event.state_changed.state))
                for segment in event.segments_added.segments:
                    print(segment.start_offset.ToTimedelta(), segment.text)
            break  # the stream ends with the job
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(1)
