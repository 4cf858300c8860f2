"""Tells where every second of a recording went, and which model made its transcript.

python examples/coverage.py JOB_ID
"""

import os
import sys

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

with grpc.insecure_channel(JOB) as channel:
    request = job_pb2.GetTranscriptRequest(job_id=sys.argv[1])
    transcript = JobServiceStub(channel).GetTranscript(request).transcript
coverage = transcript.coverage
print("speech ", coverage.speech_duration.ToTimedelta())
print("silence", coverage.silence_duration.ToTimedelta())
print("gaps   ", coverage.gap_duration.ToTimedelta())
for gap in coverage.gaps:
    print("  speech without text at", gap.start_offset.ToTimedelta())
print("by", transcript.model.name, transcript.model.revision, transcript.model.compute_type)
