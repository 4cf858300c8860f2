"""Gives the recording of a live session: an HLS playlist while it grows, one file afterwards.

python examples/live_recording.py SESSION_ID
"""

import os
import sys

import grpc

from steno.v1 import concatenation_pb2 as pb
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub

CONCATENATION = os.environ.get("STENO_CONCATENATION_ADDRESS", "localhost:50054")

with grpc.insecure_channel(CONCATENATION) as channel:
    sessions = ConcatenationServiceStub(channel)
    for form in (pb.RECORDING_FORM_PLAYLIST, pb.RECORDING_FORM_FILE):
        request = pb.GetRecordingRequest(session_id=sys.argv[1], form=form)
        recording = sessions.GetRecording(request)
        print(recording.duration.ToTimedelta(), "until", recording.expire_time.ToDatetime())
        print(recording.playlist or recording.url)
