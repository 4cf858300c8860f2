"""Uploads a recording, has it transcribed, and prints the text as it is found.

python examples/transcribe.py examples/audio/forecast.opus
"""

import os
import sys
import urllib.request
from pathlib import Path

import grpc

from steno.v1 import job_pb2, upload_pb2
from steno.v1.job_pb2_grpc import JobServiceStub
from steno.v1.upload_pb2_grpc import UploadServiceStub

UPLOAD = os.environ.get("STENO_UPLOAD_ADDRESS", "localhost:50051")
JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

path = Path(sys.argv[1])
with grpc.insecure_channel(UPLOAD) as channel:
    uploads = UploadServiceStub(channel)
    upload = uploads.CreateUpload(
        upload_pb2.CreateUploadRequest(filename=path.name, size_bytes=path.stat().st_size)
    ).upload
    with path.open("rb") as file:
        for part in upload.parts:  # straight to S3, in any order
            file.seek(part.offset_bytes)
            body = file.read(part.size_bytes)
            urllib.request.urlopen(urllib.request.Request(part.url, body, method="PUT")).close()
    request = upload_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
    audio = uploads.CompleteUpload(request).audio

with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    job = jobs.CreateJob(job_pb2.CreateJobRequest(audio_id=audio.audio_id)).job
    for response in jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job.job_id)):
        for segment in response.event.segments_added.segments:
            print(segment.start_offset.ToTimedelta(), segment.text, flush=True)
    job = jobs.GetJob(job_pb2.GetJobRequest(job_id=job.job_id)).job
    print("job", job.job_id, job_pb2.JobState.Name(job.state), job.error.message)
