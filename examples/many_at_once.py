"""Follows many jobs at once with asyncio, over one connection.

python examples/many_at_once.py JOB_ID...
"""

import asyncio
import os
import sys

import grpc

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")


async def text_of(jobs: JobServiceStub, job_id: str) -> str:
    async for _ in jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job_id)):
        pass
    request = job_pb2.GetTranscriptRequest(job_id=job_id)
    return (await jobs.GetTranscript(request)).transcript.text


async def main() -> None:
    async with grpc.aio.insecure_channel(JOB) as channel:
        jobs = JobServiceStub(channel)
        for text in await asyncio.gather(*(text_of(jobs, each) for each in sys.argv[1:])):
            print(text.strip())


asyncio.run(main())
