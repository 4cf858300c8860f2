"""Lists the models of a worker, and the languages that each knows.

python examples/models.py
"""

import os

import grpc

from steno.v1 import transcription_pb2
from steno.v1.transcription_pb2_grpc import TranscriptionServiceStub

TRANSCRIPTION = os.environ.get("STENO_TRANSCRIPTION_ADDRESS", "localhost:50053")

with grpc.insecure_channel(TRANSCRIPTION) as channel:
    request = transcription_pb2.ListModelsRequest()
    for model in TranscriptionServiceStub(channel).ListModels(request).models:
        print(model.name, model.revision, model.compute_type, ",".join(model.language_codes))
