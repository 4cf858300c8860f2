"""Tells what is wrong with a call: the field, the reason to branch on, and when to come again.

python examples/errors.py
"""

import os

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from steno.v1 import job_pb2
from steno.v1.job_pb2_grpc import JobServiceStub

JOB = os.environ.get("STENO_JOB_ADDRESS", "localhost:50052")


def explain(error: grpc.RpcError) -> None:
    print(error.code().name, "-", error.details())
    for detail in rpc_status.from_call(error).details:
        for kind in (
            error_details_pb2.BadRequest(),
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
        ):
            if not detail.Unpack(kind):
                continue
            if isinstance(kind, error_details_pb2.BadRequest):
                for violation in kind.field_violations:
                    print("  field", violation.field, "-", violation.description)
            elif isinstance(kind, error_details_pb2.ErrorInfo):
                print("  reason", kind.reason)
            else:
                print("  again in", kind.retry_delay.ToTimedelta())


with grpc.insecure_channel(JOB) as channel:
    jobs = JobServiceStub(channel)
    for wrong in ("not an id", "00000000-0000-0000-0000-000000000000"):
        try:
            jobs.GetJob(job_pb2.GetJobRequest(job_id=wrong))
        except grpc.RpcError as error:
            explain(error)
