"""Shows a live session's transcript as it grows; any number of viewers may do so.

python examples/live_viewer.py SESSION_ID
"""

import os
import sys

import grpc

from steno.v1 import concatenation_pb2 as pb
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub

CONCATENATION = os.environ.get("STENO_CONCATENATION_ADDRESS", "localhost:50054")

with grpc.insecure_channel(CONCATENATION) as channel:
    sessions = ConcatenationServiceStub(channel)
    for response in sessions.WatchSession(pb.WatchSessionRequest(session_id=sys.argv[1])):
        if response.HasField("interim"):  # the next result replaces it
            print("...", response.interim.segment.text)
        elif response.event.HasField("result_added"):
            segment = response.event.result_added.segment
            print(segment.start_offset.ToTimedelta(), segment.text)
        elif response.event.HasField("gap_added"):
            print("chunks are missing at", response.event.gap_added.span.start_offset.ToTimedelta())
