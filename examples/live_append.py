"""Sends the chunks of a live session by single calls, as a webhook would; in any order.

python examples/live_append.py examples/audio/spelling.wav
"""

import os
import sys
import wave

import grpc

from steno.v1 import concatenation_pb2 as pb
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub

CONCATENATION = os.environ.get("STENO_CONCATENATION_ADDRESS", "localhost:50054")

with wave.open(sys.argv[1]) as wav, grpc.insecure_channel(CONCATENATION) as channel:
    sessions = ConcatenationServiceStub(channel)
    config = pb.SessionConfig(
        encoding=pb.AUDIO_ENCODING_LINEAR16,
        sample_rate_hertz=wav.getframerate(),
        channel_count=wav.getnchannels(),
    )
    session = sessions.CreateSession(pb.CreateSessionRequest(config=config)).session
    seconds = range(-(-wav.getnframes() // wav.getframerate()))
    chunks = [(sequence, wav.readframes(wav.getframerate())) for sequence in seconds]
    for sequence, content in reversed(chunks):
        request = pb.AppendChunkRequest(
            session_id=session.session_id, chunk=pb.Chunk(sequence=sequence, content=content)
        )
        sessions.AppendChunk(request)  # an answer means: it is durable
    closed = sessions.CloseSession(pb.CloseSessionRequest(session_id=session.session_id)).session
    print("session", closed.session_id)
