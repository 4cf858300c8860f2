"""Streams a WAV of 16-bit samples to a live session and prints what is heard, in plain grpcio.

python examples/live_producer.py examples/audio/spelling.wav
"""

import os
import sys
import time
import wave
from collections.abc import Iterator

import grpc

from steno.v1 import concatenation_pb2 as pb
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub

CONCATENATION = os.environ.get("STENO_CONCATENATION_ADDRESS", "localhost:50054")

with wave.open(sys.argv[1]) as wav, grpc.insecure_channel(CONCATENATION) as channel:
    service = ConcatenationServiceStub(channel)
    config = pb.SessionConfig(
        encoding=pb.AUDIO_ENCODING_LINEAR16,
        sample_rate_hertz=wav.getframerate(),
        channel_count=wav.getnchannels(),
    )
    session_id = service.CreateSession(pb.CreateSessionRequest(config=config)).session.session_id

    def requests() -> Iterator[pb.StreamAudioRequest]:
        yield pb.StreamAudioRequest(start=pb.StreamAudioStart(session_id=session_id))
        for sequence in range(-(-wav.getnframes() * 5 // wav.getframerate())):
            content = wav.readframes(wav.getframerate() // 5)
            yield pb.StreamAudioRequest(chunk=pb.Chunk(sequence=sequence, content=content))
            time.sleep(0.2)

    for response in service.StreamAudio(requests()):
        if response.HasField("result"):
            print("...", response.result.segment.text)
    closed = service.CloseSession(pb.CloseSessionRequest(session_id=session_id)).session
    for told in service.WatchSession(pb.WatchSessionRequest(session_id=session_id)):
        if told.event.HasField("result_added"):
            print(told.event.result_added.segment.text)
    print("audio", closed.audio_id, "final transcript: job", closed.job_id)
