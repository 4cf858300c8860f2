"""Removes a job with its transcript, and then the audio with all its bytes.

python examples/delete.py JOB_ID
"""

import os
import sys

import grpc

from steno.v1 import job_pb2, upload_pb2
from steno.v1.job_pb2_grpc import JobServiceStub
from steno.v1.upload_pb2_grpc import UploadServiceStub

UPLOAD = os.environ.get("STENO_UPLOAD_ADDRESS", "localhost:50051")
JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

with grpc.insecure_channel(UPLOAD) as upload_channel, grpc.insecure_channel(JOB) as job_channel:
    jobs = JobServiceStub(job_channel)
    job = jobs.GetJob(job_pb2.GetJobRequest(job_id=sys.argv[1])).job
    jobs.DeleteJob(job_pb2.DeleteJobRequest(job_id=job.job_id))
    uploads = UploadServiceStub(upload_channel)
    uploads.DeleteAudio(upload_pb2.DeleteAudioRequest(audio_id=job.audio_id))
    print("deleted job", job.job_id, "and audio", job.audio_id)
