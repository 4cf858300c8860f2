"""Goes on with an upload that was broken off: only the parts that are missing are sent.

python examples/resume_upload.py talk.mp3             begins, and stops after the first part
python examples/resume_upload.py talk.mp3 UPLOAD_ID   sends the rest
"""

import os
import sys
import urllib.request
from pathlib import Path

import grpc

from steno.v1 import upload_pb2
from steno.v1.upload_pb2_grpc import UploadServiceStub

UPLOAD = os.environ.get("STENO_UPLOAD_ADDRESS", "localhost:50051")

path = Path(sys.argv[1])
begins = len(sys.argv) < 3
with grpc.insecure_channel(UPLOAD) as channel, path.open("rb") as file:
    uploads = UploadServiceStub(channel)
    if begins:
        upload = uploads.CreateUpload(
            upload_pb2.CreateUploadRequest(filename=path.name, size_bytes=path.stat().st_size)
        ).upload
    else:  # its URLs are fresh
        request = upload_pb2.GetUploadRequest(upload_id=sys.argv[2])
        upload = uploads.GetUpload(request).upload
    missing = [part for part in upload.parts if not part.landed]
    print(f"upload {upload.upload_id}: {len(missing)} of {len(upload.parts)} parts are missing")
    for part in missing[:1] if begins else missing:
        file.seek(part.offset_bytes)
        body = file.read(part.size_bytes)
        urllib.request.urlopen(urllib.request.Request(part.url, body, method="PUT")).close()
    if not begins:
        completed = uploads.CompleteUpload(
            upload_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
        )
        print("audio", completed.audio.audio_id)
