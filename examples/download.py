"""Downloads the bytes of an audio, as they were uploaded.

python examples/download.py AUDIO_ID talk.mp3
"""

import os
import sys
import urllib.request

import grpc

from steno.v1 import upload_pb2
from steno.v1.upload_pb2_grpc import UploadServiceStub

UPLOAD = os.environ.get("STENO_UPLOAD_ADDRESS", "localhost:50051")

audio_id, path = sys.argv[1:]
with grpc.insecure_channel(UPLOAD) as channel:
    request = upload_pb2.GetDownloadUrlRequest(audio_id=audio_id)
    url = UploadServiceStub(channel).GetDownloadUrl(request).url
urllib.request.urlretrieve(url, path)
print("wrote", path)
