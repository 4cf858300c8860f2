"""Transcribes a short recording, of a minute at most, in one call: nothing is stored.

python examples/recognize.py examples/audio/forecast.opus
"""

import os
import sys
from pathlib import Path

import grpc

from steno.v1 import transcription_pb2
from steno.v1.transcription_pb2_grpc import TranscriptionServiceStub

TRANSCRIPTION = os.environ.get("STENO_TRANSCRIPTION_ADDRESS", "localhost:50053")

with grpc.insecure_channel(TRANSCRIPTION) as channel:
    request = transcription_pb2.RecognizeRequest(content=Path(sys.argv[1]).read_bytes())
    response = TranscriptionServiceStub(channel).Recognize(request, timeout=60)
    print(f"{response.language_code}, {response.audio_duration.ToTimedelta()}")
    print(response.text)
