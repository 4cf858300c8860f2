"""Writes a transcript as subtitles; TXT, VTT, TSV and JSON go the same way.

python examples/subtitles.py JOB_ID > talk.srt
"""

import os
import sys

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

with grpc.insecure_channel(JOB) as channel:
    request = job_pb2.GetTranscriptRequest(job_id=sys.argv[1], format=job_pb2.TRANSCRIPT_FORMAT_SRT)
    print(JobServiceStub(channel).GetTranscript(request).rendered, end="")
