"""Uploads what comes from a pipe, of a length that nobody knows, in one gRPC stream.

cat examples/audio/forecast.opus | python examples/upload_stream.py
"""

import os
import sys
from collections.abc import Iterator

import grpc

from steno.v1 import upload_pb2
from steno.v1.upload_pb2_grpc import UploadServiceStub

UPLOAD = os.environ.get("STENO_UPLOAD_ADDRESS", "localhost:50051")


def requests() -> Iterator[upload_pb2.UploadAudioRequest]:
    header = upload_pb2.UploadAudioHeader(filename="from-a-pipe")
    yield upload_pb2.UploadAudioRequest(header=header)
    while chunk := sys.stdin.buffer.read(2**18):
        yield upload_pb2.UploadAudioRequest(chunk=chunk)


with grpc.insecure_channel(UPLOAD) as channel:
    audio = UploadServiceStub(channel).UploadAudio(requests()).audio
    print("audio", audio.audio_id)
