"""Clients that send files, in parts or as one stream, and make jobs of them."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from faults.calls import CALL_SECONDS, Refused
from faults.jobs import JobClient
from faults.oracle import Sound, blocks_in, samples_of
from recordings import encoded, wav
from steno.v1 import transcription_pb2, upload_pb2

LONG = 0.04
"""Share of recordings that are long enough for two or three slices."""


def file_of(sound: Sound) -> tuple[str, bytes]:
    """Its name and its bytes: a WAV, or a FLAC, which keeps every sample too."""
    form = "flac" if sound.file % 3 == 0 else "wav"
    return f"{sound.file}.{form}", encoded(samples_of(sound.file, 0, sound.blocks), form)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Uploader(JobClient):
    """Sends a file after the other."""

    async def send_file(self, file: int) -> None:
        """Uploads one, makes jobs of it, follows them, and sometimes deletes what is there."""
        if self.random.random() < 0.03:
            await self._send_noise(file)
            return
        long = self.random.random() < LONG
        seconds = self.random.uniform(60, 130) if long else self.random.uniform(0.3, 4)
        sound = Sound(file, blocks_in(seconds))
        if self.random.random() < 0.05:
            await self._give_upload_up(sound)
            return
        if not long and self.random.random() < 0.1:
            await self._recognize(sound)
        audio_id = await (self._stream_up if self.random.random() < 0.3 else self.put_up)(sound)
        if self.random.random() < 0.1:
            await self._read_back(audio_id, sound)
        count = 1 if long else self.random.choice((1, 2, 5, 10, 25))
        jobs = await self.create_jobs(audio_id, sound, count)
        if self.random.random() < 0.15:
            await self.cancel(jobs[0], audio_id, sound)
        for job_id in jobs:
            await self.follow(job_id)
        await self._tidy(jobs, audio_id)

    async def _recognize(self, sound: Sound) -> None:
        """Has a short file heard while it waits."""
        request = transcription_pb2.RecognizeRequest(
            config=self.config(), content=wav(samples_of(sound.file, 0, sound.blocks))
        )
        await self.persist(
            "recognize",
            lambda timeout: self.any(self.system.recognizers).Recognize(request, timeout=timeout),
            lambda response: {"text": response.text},
            options=request.config.prompt,
            **sound.told,
        )

    async def _tidy(self, jobs: Sequence[str], audio_id: str) -> None:
        if self.random.random() < 0.1:
            await self.delete("delete_job", jobs[-1])
        if self.random.random() < 0.1:
            await self.delete("delete_audio", audio_id)

    async def _send_noise(self, file: int) -> None:
        """Sends what is no sound, waits for the verdict, and asks for another try in vain."""
        audio_id = await self._send_stream(f"{file}.mp3", self.random.randbytes(5000), noise=True)
        while await self.look_for_audio(audio_id) not in ("READY", "REJECTED"):
            self.give_up_in_time()
            await asyncio.sleep(0.5)
        with suppress(Refused):
            await self._retry_audio(audio_id)

    async def _read_back(self, audio_id: str, sound: Sound) -> None:
        """Has a recording prepared now rather than later, and downloads it."""
        await self._retry_audio(audio_id)
        await self._list()

        def read(url: str) -> str:
            with urllib.request.urlopen(url, timeout=CALL_SECONDS) as response:
                return sha256_of(response.read())

        _, data = file_of(sound)
        await self.over_http(
            "download",
            self._download_urls(audio_id),
            read,
            lambda sha256: {"sha256": sha256},
            id=audio_id,
            sha256=sha256_of(data),
        )

    async def _list(self) -> None:
        audio, models = upload_pb2.ListAudioRequest(), transcription_pb2.ListModelsRequest()
        await self.persist(
            "list_audio",
            lambda timeout: self.any(self.system.uploads).ListAudio(audio, timeout=timeout),
        )
        await self.persist(
            "list_models",
            lambda timeout: self.any(self.system.recognizers).ListModels(models, timeout=timeout),
        )

    async def _retry_audio(self, audio_id: str) -> None:
        request = upload_pb2.RetryAudioRequest(audio_id=audio_id)
        await self.persist(
            "retry_audio",
            lambda timeout: self.any(self.system.uploads).RetryAudio(request, timeout=timeout),
            id=audio_id,
        )

    async def _download_urls(self, audio_id: str) -> AsyncIterator[str]:
        request = upload_pb2.GetDownloadUrlRequest(audio_id=audio_id)
        while True:
            found = await self.persist(
                "get_download_url",
                lambda timeout: self.any(self.system.uploads).GetDownloadUrl(
                    request, timeout=timeout
                ),
                id=audio_id,
            )
            yield found.url

    async def put_up(self, sound: Sound) -> str:
        """Uploads in parts; returns the audio."""
        name, data = file_of(sound)
        upload = await self._create_upload(sound, name, data)
        if upload.sha256 and self.random.random() < 0.05:
            await self._complete_damaged(upload, data, sound)
        for part in upload.parts:
            await self._put(upload, part, data, sound)
        request = upload_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
        completed = await self.persist(
            "complete_upload",
            lambda timeout: self.any(self.system.uploads).CompleteUpload(request, timeout=timeout),
            lambda response: {"audio_id": response.audio.audio_id},
            upload_id=upload.upload_id,
            **sound.told,
        )
        return str(completed.audio.audio_id)

    async def _complete_damaged(self, upload: upload_pb2.Upload, data: bytes, sound: Sound) -> None:
        """Sends other bytes than were announced: they must not be taken, and begin anew."""
        damaged = data[:-1] + bytes([data[-1] ^ 1])
        for part in upload.parts:
            await self._put(upload, part, damaged, sound)
        request = upload_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
        with suppress(Refused):
            await self.persist(
                "complete_damaged",
                lambda timeout: self.any(self.system.uploads).CompleteUpload(
                    request, timeout=timeout
                ),
                upload_id=upload.upload_id,
            )

    async def _create_upload(self, sound: Sound, name: str, data: bytes) -> upload_pb2.Upload:
        request = upload_pb2.CreateUploadRequest(
            filename=name,
            size_bytes=len(data),
            sha256=sha256_of(data) if self.random.random() < 0.5 else "",
            request_id=self.new_id(),
        )
        created: upload_pb2.CreateUploadResponse = await self.persist(
            "create_upload",
            lambda timeout: self.any(self.system.uploads).CreateUpload(request, timeout=timeout),
            lambda response: {
                "upload_id": response.upload.upload_id,
                "expires_after": _lifetime(response.upload),
            },
            request_id=request.request_id,
            **sound.told,
        )
        return created.upload

    async def _put(
        self, upload: upload_pb2.Upload, part: upload_pb2.UploadPart, data: bytes, sound: Sound
    ) -> None:
        body = data[part.offset_bytes :][: part.size_bytes]

        def put(url: str) -> None:
            request = urllib.request.Request(url, body, method="PUT")
            with urllib.request.urlopen(request, timeout=CALL_SECONDS):
                pass

        urls = self._urls(upload, part.part_number)
        await self.over_http("put_part", urls, put, file=sound.file, size=len(body))

    async def _urls(self, upload: upload_pb2.Upload, part_number: int) -> AsyncIterator[str]:
        """Where a part goes, as long as it has not landed."""
        request = upload_pb2.GetUploadRequest(upload_id=upload.upload_id)
        while not (part := upload.parts[part_number - 1]).landed:
            yield part.url
            found = await self.persist(
                "get_upload",
                lambda timeout: self.any(self.system.uploads).GetUpload(request, timeout=timeout),
                upload_id=upload.upload_id,
            )
            upload = found.upload

    async def _give_upload_up(self, sound: Sound) -> None:
        name, data = file_of(sound)
        upload = await self._create_upload(sound, name, data)
        if self.random.random() < 0.5:
            await self._put(upload, upload.parts[0], data, sound)
        if self.random.random() < 0.3:
            return  # it expires
        request = upload_pb2.AbortUploadRequest(upload_id=upload.upload_id)
        await self.persist(
            "abort_upload",
            lambda timeout: self.any(self.system.uploads).AbortUpload(request, timeout=timeout),
            upload_id=upload.upload_id,
        )

    async def _stream_up(self, sound: Sound) -> str:
        return await self._send_stream(*file_of(sound), **sound.told)

    async def _send_stream(self, name: str, data: bytes, **asked: Any) -> str:
        header = upload_pb2.UploadAudioHeader(filename=name, request_id=self.new_id())

        async def messages() -> AsyncIterator[upload_pb2.UploadAudioRequest]:
            yield upload_pb2.UploadAudioRequest(header=header)
            for start in range(0, len(data), 2**18):
                yield upload_pb2.UploadAudioRequest(chunk=data[start : start + 2**18])

        upload: Any = self.any(self.system.uploads).UploadAudio
        uploaded = await self.persist(
            "upload_audio",
            lambda timeout: upload(messages(), timeout=timeout),
            lambda response: {"audio_id": response.audio.audio_id},
            request_id=header.request_id,
            **asked,
        )
        return str(uploaded.audio.audio_id)


def _lifetime(upload: upload_pb2.Upload) -> float:
    """Seconds for which an upload is open for certain: without parts it ends with its URLs."""
    ends = min(upload.expire_time.ToDatetime(), upload.url_expire_time.ToDatetime())
    return (ends - upload.create_time.ToDatetime()).total_seconds()
