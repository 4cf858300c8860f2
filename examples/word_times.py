"""Has a recording transcribed with hints, and prints when each word is said.

python examples/word_times.py AUDIO_ID
"""

import os
import sys

import grpc

from steno.v1 import job_pb2, transcript_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")

config = transcript_pb2.RecognitionConfig(
    language_code="en",
    enable_word_time_offsets=True,
    hotwords=["Reykjavik", "Saoirse"],  # names that the model would spell otherwise
    prompt="A weather forecast.",
)
with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    job = jobs.CreateJob(job_pb2.CreateJobRequest(audio_id=sys.argv[1], config=config)).job
    for _ in jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job.job_id)):
        pass
    request = job_pb2.GetTranscriptRequest(job_id=job.job_id)
    for segment in jobs.GetTranscript(request).transcript.segments:
        for word in segment.words:
            print(word.start_offset.ToTimedelta(), f"{word.confidence:.0%}", word.word.strip())
