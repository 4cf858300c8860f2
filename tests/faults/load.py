"""The clients: they upload, make jobs, watch, cancel, retry, delete and stream, and write it down.

Each client is one process of the history: it does one thing after the other, and tells of each call
what it asked and was told. What came back unknown is asked again, with the same request id, as the
contracts allow. Some calls get hardly any time, so that their callers are gone when the answer
comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import time
import urllib.error
import urllib.request
import uuid
import wave
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import numpy as np

from faults.history import History, Told, told_by
from faults.oracle import Run, blocks_in, runs_of, samples_of, without
from faults.system import MODEL, System
from recordings import wav
from steno.platform.errors import read_failure
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2, upload_pb2

T = TypeVar("T")

CALL_SECONDS = 10.0
"""Patience of a caller."""
HASTY_SECONDS = 0.05
"""Patience of one that leaves before the answer."""
HASTY = 0.03
"""Share of calls whose caller leaves."""
CHUNK_BLOCKS = blocks_in(0.05)
LONG = 0.04
"""Share of recordings that are long enough for two or three slices."""

ENDED = {
    job_pb2.JOB_STATE_SUCCEEDED: "SUCCEEDED",
    job_pb2.JOB_STATE_FAILED: "FAILED",
    job_pb2.JOB_STATE_CANCELLED: "CANCELLED",
}


class GivenUp(Exception):
    """The load is over, and this was still unknown."""


class Refused(Exception):
    """The platform said no."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass
class Sound:
    """What somebody has recorded.

    Attributes:
        file: its number.
        blocks: its length.
        missing: stretches (first block, count) that are never sent.
    """

    file: int
    blocks: int
    missing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """What a recording of it holds."""
        return without(self.file, self.blocks, self.missing)

    @property
    def told(self) -> dict[str, Any]:
        """For the history."""
        return {"file": self.file, "blocks": self.blocks, "missing": self.missing}


class Load:
    """All clients of a trial."""

    def __init__(self, system: System, history: History, seed: int) -> None:
        self.system = system
        self.history = history
        self.seed = seed
        self.stopping = asyncio.Event()
        self.deadline = float("inf")
        """Until then, on the clock of the event loop, what is unknown is asked again."""
        self.in_flight: set[grpc.aio.Call] = set()
        self.threads = ThreadPoolExecutor(32, "load")
        self._files = 0

    def next_file(self) -> int:
        """A number that no other recording has."""
        self._files += 1
        return self._files

    async def run(self, uploaders: int, speakers: int) -> None:
        """Works until `stopping` is set, and then ends what it has begun.

        Args:
            uploaders: clients that send files.
            speakers: clients that are recorded live.
        """
        clients = [Client(self, f"uploader-{number}") for number in range(uploaders)]
        clients += [Client(self, f"speaker-{number}") for number in range(speakers)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.live())

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)


class Client:
    """One process of the history."""

    def __init__(self, load: Load, name: str) -> None:
        self._load = load
        self._system = load.system
        self._history = load.history
        self._name = name
        self.random = random.Random(f"{load.seed} {name}")
        self.hasty = HASTY

    async def live(self) -> None:
        """Does one thing after the other until the load stops."""
        while not self._load.stopping.is_set():
            try:
                await (self._speak() if self._name.startswith("speaker") else self._send_file())
            except* (GivenUp, Refused):
                pass  # the history has it

    # What a client does with files.

    async def _send_file(self) -> None:
        long = self.random.random() < LONG
        seconds = self.random.uniform(60, 130) if long else self.random.uniform(0.3, 4)
        sound = Sound(self._load.next_file(), blocks_in(seconds))
        if self.random.random() < 0.05:
            await self._abort_upload(sound)
            return
        audio_id = await (self._stream_up if self.random.random() < 0.3 else self._put_up)(sound)
        count = 1 if long else self.random.choice((1, 1, 2, 5, 10, 25))
        jobs = await self._create_jobs(audio_id, sound, count)
        if self.random.random() < 0.15:
            await self._cancel(jobs[0], audio_id, sound)
        for job_id in jobs:
            await self.follow(job_id)
        await self._tidy(jobs, audio_id)

    async def _tidy(self, jobs: Sequence[str], audio_id: str) -> None:
        if self.random.random() < 0.1:
            await self._delete("delete_job", jobs[-1])
        if self.random.random() < 0.1:
            await self._delete("delete_audio", audio_id)

    async def _put_up(self, sound: Sound) -> str:
        data = wav(samples_of(sound.file, 0, sound.blocks))
        upload = await self._create_upload(sound, data)
        for part in upload.parts:
            await self._put(part.url, data[part.offset_bytes :][: part.size_bytes], sound)
        request = upload_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
        completed = await self.persist(
            "complete_upload",
            lambda timeout: self.any(self._system.uploads).CompleteUpload(request, timeout=timeout),
            lambda response: {"audio_id": response.audio.audio_id},
            upload_id=upload.upload_id,
            **sound.told,
        )
        return str(completed.audio.audio_id)

    async def _create_upload(self, sound: Sound, data: bytes) -> upload_pb2.Upload:
        request = upload_pb2.CreateUploadRequest(
            filename=f"{sound.file}.wav",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest() if self.random.random() < 0.5 else "",
            request_id=self.new_id(),
        )
        created: upload_pb2.CreateUploadResponse = await self.persist(
            "create_upload",
            lambda timeout: self.any(self._system.uploads).CreateUpload(request, timeout=timeout),
            lambda response: {"upload_id": response.upload.upload_id},
            request_id=request.request_id,
            **sound.told,
        )
        return created.upload

    async def _put(self, url: str, body: bytes, sound: Sound) -> None:
        def put() -> None:
            request = urllib.request.Request(url, body, method="PUT")
            with urllib.request.urlopen(request, timeout=CALL_SECONDS):
                pass

        await self._over_http("put_part", put, file=sound.file, size=len(body))

    async def _abort_upload(self, sound: Sound) -> None:
        data = wav(samples_of(sound.file, 0, sound.blocks))
        upload = await self._create_upload(sound, data)
        if self.random.random() < 0.5:
            await self._put(upload.parts[0].url, data[: upload.parts[0].size_bytes], sound)
        request = upload_pb2.AbortUploadRequest(upload_id=upload.upload_id)
        await self.persist(
            "abort_upload",
            lambda timeout: self.any(self._system.uploads).AbortUpload(request, timeout=timeout),
            upload_id=upload.upload_id,
        )

    async def _stream_up(self, sound: Sound) -> str:
        data = wav(samples_of(sound.file, 0, sound.blocks))
        header = upload_pb2.UploadAudioHeader(
            filename=f"{sound.file}.wav", request_id=self.new_id()
        )

        async def messages() -> AsyncIterator[upload_pb2.UploadAudioRequest]:
            yield upload_pb2.UploadAudioRequest(header=header)
            for start in range(0, len(data), 2**18):
                yield upload_pb2.UploadAudioRequest(chunk=data[start : start + 2**18])

        upload: Any = self.any(self._system.uploads).UploadAudio
        uploaded = await self.persist(
            "upload_audio",
            lambda timeout: upload(messages(), timeout=timeout),
            lambda response: {"audio_id": response.audio.audio_id},
            request_id=header.request_id,
            **sound.told,
        )
        return str(uploaded.audio.audio_id)

    # What a client does with jobs.

    async def _create_jobs(self, audio_id: str, sound: Sound, count: int) -> list[str]:
        requests = [
            job_pb2.CreateJobRequest(
                audio_id=audio_id,
                config=self.config(),
                request_id=self.new_id(),
                priority=self.random.choice(job_pb2.JobPriority.values()),
            )
            for _ in range(count)
        ]
        for request in requests:
            request.labels["request"] = request.request_id
        asked = [
            {"request_id": request.request_id, "options": request.config.prompt}
            for request in requests
        ]
        if count == 1:
            one = await self.persist(
                "create_jobs",
                lambda timeout: self.job_service.CreateJob(requests[0], timeout=timeout),
                lambda response: {"job_ids": [response.job.job_id]},
                audio_id=audio_id,
                jobs=asked,
                **sound.told,
            )
            return [one.job.job_id]
        batch = job_pb2.BatchCreateJobsRequest(requests=requests)
        several = await self.persist(
            "create_jobs",
            lambda timeout: self.job_service.BatchCreateJobs(batch, timeout=timeout),
            lambda response: {"job_ids": [job.job_id for job in response.jobs]},
            audio_id=audio_id,
            jobs=asked,
            **sound.told,
        )
        return [job.job_id for job in several.jobs]

    async def _cancel(self, job_id: str, audio_id: str, sound: Sound) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.5))
        request = job_pb2.CancelJobRequest(job_id=job_id)
        try:
            await self.persist(
                "cancel_job",
                lambda timeout: self.job_service.CancelJob(request, timeout=timeout),
                seen_of_job,
                job_id=job_id,
            )
        except Refused as refused:
            if refused.reason != "JOB_ENDED":
                raise
            return
        if self.random.random() < 0.5:
            await self._retry(job_id, audio_id, sound)

    async def _retry(self, job_id: str, audio_id: str, sound: Sound) -> None:
        request = job_pb2.RetryJobRequest(job_id=job_id, request_id=self.new_id())
        with suppress(Refused):  # it may have been done, all but the word
            retried = await self.persist(
                "retry_job",
                lambda timeout: self.job_service.RetryJob(request, timeout=timeout),
                lambda response: {"job_ids": [response.job.job_id]},
                job_id=job_id,
                request_id=request.request_id,
                audio_id=audio_id,
                **sound.told,
            )
            await self.follow(retried.job.job_id)

    async def follow(self, job_id: str) -> None:
        """Waits for a job's end, one way or the other, and reads what it has become."""
        state = await (self._watch if self.random.random() < 0.4 else self._poll)(job_id)
        if state == "SUCCEEDED":
            await self.read_transcript(job_id)

    async def _poll(self, job_id: str) -> str:
        request = job_pb2.GetJobRequest(job_id=job_id)
        pause = 0.2
        while True:
            response = await self.persist(
                "get_job",
                lambda timeout: self.job_service.GetJob(request, timeout=timeout),
                seen_of_job,
                job_id=job_id,
            )
            if response.job.state in ENDED:
                return ENDED[response.job.state]
            self.give_up_in_time()
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, 2)

    async def _watch(self, job_id: str) -> str:
        """Watches over as many connections as it takes, some of which the client itself cuts."""
        seen = 0
        while True:
            patience = self.random.choice((0.2, 1, 5, CALL_SECONDS))
            events = await self.watch_once(self.job_service, job_id, seen, patience)
            seen = events[-1]["revision"] if events else seen
            if events and events[-1]["state"] in ENDED.values():
                return str(events[-1]["state"])
            self.give_up_in_time()
            await asyncio.sleep(0.1)

    async def watch_once(
        self, service: Any, job_id: str, after: int, patience: float
    ) -> list[dict[str, Any]]:
        """What one stream tells of a job, as far as it comes."""
        operation = self._history.begin(self._name, "watch_job", job_id=job_id, after=after)
        events: list[dict[str, Any]] = []
        request = job_pb2.WatchJobRequest(job_id=job_id, after_revision=after)
        told, code, reason = "ok", "OK", ""
        try:
            async for response in self._caught(service.WatchJob(request, timeout=patience)):
                if response.HasField("event"):
                    events.append(seen_of_event(response.event))
        except grpc.aio.AioRpcError as error:
            told, code, reason = _failure_of(error)
        self._history.end(operation, told, events=events, code=code, reason=reason)  # type: ignore[arg-type]
        return events

    async def read_transcript(self, job_id: str) -> None:
        """Reads a transcript, and remembers all of it."""
        request = job_pb2.GetTranscriptRequest(job_id=job_id)
        with suppress(Refused):
            await self.persist(
                "get_transcript",
                lambda timeout: self.job_service.GetTranscript(request, timeout=timeout),
                seen_of_transcript,
                job_id=job_id,
            )

    async def _delete(self, what: str, resource: str) -> None:
        if what == "delete_job":
            request: Any = job_pb2.DeleteJobRequest(job_id=resource)
            services: Sequence[Any] = self._system.jobs
            method = "DeleteJob"
        else:
            request = upload_pb2.DeleteAudioRequest(audio_id=resource)
            services, method = self._system.uploads, "DeleteAudio"
        try:
            await self.persist(
                what,
                lambda timeout: getattr(self.any(services), method)(request, timeout=timeout),
                id=resource,
            )
        except Refused as refused:
            if refused.code != "NOT_FOUND":  # done by a call whose answer was lost
                raise

    # What a client does that is recorded live.

    async def _speak(self) -> None:
        count = self.random.randint(50, 600)
        sound = Sound(self._load.next_file(), count * CHUNK_BLOCKS)
        missing = self.random.sample(range(1, count - 1), self.random.choice((0, 0, 0, 1, 2)))
        sound.missing = [(sequence * CHUNK_BLOCKS, CHUNK_BLOCKS) for sequence in sorted(missing)]
        config = concatenation_pb2.SessionConfig(
            encoding=concatenation_pb2.AUDIO_ENCODING_LINEAR16,
            sample_rate_hertz=16_000,
            live_results=self.random.random() < 0.15,
            final_job=self.random.random() < 0.5,
            final_job_config=self.config(),
            # Nothing is given up before the client has closed the session.
            gap_timeout=duration_of(3600),
            idle_timeout=duration_of(3600),
        )
        request = concatenation_pb2.CreateSessionRequest(config=config, request_id=self.new_id())
        request.labels["request"] = request.request_id
        created = await self.persist(
            "create_session",
            lambda timeout: self.session_service.CreateSession(request, timeout=timeout),
            lambda response: {"session_id": response.session.session_id},
            request_id=request.request_id,
            final_job=config.final_job,
            options=config.final_job_config.prompt,
            **sound.told,
        )
        session_id = created.session.session_id
        chunks = {
            sequence: samples_of(sound.file, sequence * CHUNK_BLOCKS, CHUNK_BLOCKS).tobytes()
            for sequence in range(count)
            if sequence not in missing
        }
        watching = None
        if self.random.random() < 0.3:
            watching = asyncio.create_task(self._watch_session(session_id))
        try:
            await self._send_chunks(session_id, chunks)
            await self._close(session_id, sound)
        finally:
            if watching:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _send_chunks(self, session_id: str, chunks: dict[int, bytes]) -> None:
        """Sends all, from one to three producers: shuffled, and some of them twice."""
        producers = self.random.randint(1, 3)
        streams = self.random.random() < 0.7
        left = list(chunks)
        for start in range(0, len(left), 8):
            some = left[start : start + 8]
            self.random.shuffle(some)
            left[start : start + 8] = some
        shares = [left[number::producers] for number in range(producers)]
        shares = [[*share, *self.random.sample(share, len(share) // 10)] for share in shares]
        async with asyncio.TaskGroup() as group:
            for number, share in enumerate(shares):
                send = self._stream_chunks if streams and number == 0 else self._append_chunks
                group.create_task(send(session_id, chunks, share))

    async def _append_chunks(
        self, session_id: str, chunks: dict[int, bytes], sequences: Sequence[int]
    ) -> None:
        for sequence in sequences:
            await self._append_chunk(session_id, sequence, chunks[sequence])

    async def _append_chunk(self, session_id: str, sequence: int, content: bytes) -> None:
        chunk = concatenation_pb2.Chunk(sequence=sequence, content=content)
        request = concatenation_pb2.AppendChunkRequest(session_id=session_id, chunk=chunk)
        await self.persist(
            "append_chunk",
            lambda timeout: self.session_service.AppendChunk(request, timeout=timeout),
            session_id=session_id,
            sequence=sequence,
        )

    async def _stream_chunks(
        self, session_id: str, chunks: dict[int, bytes], sequences: Sequence[int]
    ) -> None:
        acked: set[int] = set()
        producer, epoch = self.new_id(), 0
        while left := [sequence for sequence in sequences if sequence not in acked]:
            self.give_up_in_time()
            start = concatenation_pb2.StreamAudioStart(
                session_id=session_id, epoch=epoch, producer_id=producer
            )
            operation = self._history.begin(
                self._name, "stream_audio", session_id=session_id, sequences=left
            )
            told, code, reason = "ok", "OK", ""
            fresh: list[int] = []
            refused: list[list[Any]] = []
            call = self.session_service.StreamAudio(
                self._messages(start, chunks, left),
                timeout=self.random.choice((0.3, 2, CALL_SECONDS)),
            )
            try:
                async for response in self._caught(call):
                    if response.HasField("ready"):
                        epoch = response.ready.epoch
                    fresh += response.ack.sequences
                    if response.HasField("refusal"):
                        refused.append([response.refusal.sequence, response.refusal.reason])
            except grpc.aio.AioRpcError as error:
                told, code, reason = _failure_of(error)
            acked.update(fresh)
            self._history.end(
                operation,
                told,  # type: ignore[arg-type]
                acked=fresh,
                refused=refused,
                code=code,
                reason=reason,
            )
            if told != "ok":
                await asyncio.sleep(0.2)
            if told == "failed" and code != "RESOURCE_EXHAUSTED":
                raise GivenUp  # the checker has it

    async def _messages(
        self,
        start: concatenation_pb2.StreamAudioStart,
        chunks: dict[int, bytes],
        sequences: Sequence[int],
    ) -> AsyncIterator[concatenation_pb2.StreamAudioRequest]:
        yield concatenation_pb2.StreamAudioRequest(start=start)
        for sequence in sequences:
            chunk = concatenation_pb2.Chunk(sequence=sequence, content=chunks[sequence])
            yield concatenation_pb2.StreamAudioRequest(chunk=chunk)
            await asyncio.sleep(0.002)

    async def _close(self, session_id: str, sound: Sound) -> None:
        close = concatenation_pb2.CloseSessionRequest(session_id=session_id)
        await self.persist(
            "close_session",
            lambda timeout: self.session_service.CloseSession(close, timeout=timeout),
            session_id=session_id,
        )
        session = await self._finished(session_id)
        await self._read_recording(session_id, sound)
        if session.job_id:
            await self.follow(session.job_id)

    async def _finished(self, session_id: str) -> concatenation_pb2.Session:
        request = concatenation_pb2.GetSessionRequest(session_id=session_id)
        while True:
            response = await self.persist(
                "get_session",
                lambda timeout: self.session_service.GetSession(request, timeout=timeout),
                seen_of_session,
                session_id=session_id,
            )
            session: concatenation_pb2.Session = response.session
            if session.audio_id and (session.job_id or not session.config.final_job):
                return session
            self.give_up_in_time()
            await asyncio.sleep(0.5)

    async def _read_recording(self, session_id: str, sound: Sound) -> None:
        request = concatenation_pb2.GetRecordingRequest(
            session_id=session_id, form=concatenation_pb2.RECORDING_FORM_FILE
        )
        recording = await self.persist(
            "get_recording",
            lambda timeout: self.session_service.GetRecording(request, timeout=timeout),
            session_id=session_id,
        )

        def read() -> list[Run]:
            with urllib.request.urlopen(recording.url, timeout=CALL_SECONDS) as response:
                return runs_of(samples_in(response.read()))

        await self._over_http("read_recording", read, _seen_of_runs, session_id=session_id)

    async def _watch_session(self, session_id: str) -> None:
        seen = 0
        while True:
            operation = self._history.begin(
                self._name, "watch_session", session_id=session_id, after=seen
            )
            events = []
            told, code, reason = "ok", "OK", ""
            request = concatenation_pb2.WatchSessionRequest(
                session_id=session_id, after_revision=seen
            )
            call = self.session_service.WatchSession(
                request, timeout=self.random.choice((0.5, 3, CALL_SECONDS))
            )
            try:
                async for response in self._caught(call):
                    if response.HasField("event"):
                        seen = response.event.revision
                        events.append({"revision": seen, "digest": _digest(response.event)})
            except grpc.aio.AioRpcError as error:
                told, code, reason = _failure_of(error)
            finally:
                self._history.end(operation, told, events=events, code=code, reason=reason)  # type: ignore[arg-type]
            if told == "ok":
                return
            await asyncio.sleep(0.1)

    # How a client calls.

    async def persist(
        self,
        what: str,
        call: Callable[[float], Any],
        seen: Callable[[Any], dict[str, Any]] = lambda response: {},
        **asked: Any,
    ) -> Any:
        """Asks until the answer is known. Raises Refused, or GivenUp when the load is over.

        Args:
            what: name in the history.
            call: calls with a timeout.
            seen: what the history keeps of a response.
            asked: what the history keeps of the request.
        """
        while True:
            operation = self._history.begin(self._name, what, **asked)
            hasty = self.random.random() < self.hasty
            response = None
            told: Told = "ok"
            answer: dict[str, Any]
            try:
                response = await self._answer(call(HASTY_SECONDS if hasty else CALL_SECONDS))
                answer = seen(response)
            except grpc.aio.AioRpcError as error:
                told, code, reason = _failure_of(error)
                answer = {"code": code, "reason": reason}
            except Left:
                told, answer = "unknown", {"code": "CANCELLED", "reason": "the caller left"}
            self._history.end(operation, told, **answer)
            if told == "ok":
                return response
            if told == "failed" and answer["code"] != "RESOURCE_EXHAUSTED":
                raise Refused(answer["code"], answer["reason"])
            self.give_up_in_time()
            await asyncio.sleep(self.random.uniform(0.1, 0.4))

    async def _answer(self, call: Any) -> Any:
        self._load.in_flight.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                call.cancel()
                raise
            raise Left from None
        finally:
            self._load.in_flight.discard(call)

    async def _caught(self, call: Any) -> AsyncIterator[Any]:
        """A stream's messages; what the client does not wait for is cancelled."""
        self._load.in_flight.add(call)
        try:
            async for response in call:
                yield response
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata()
            ) from None
        finally:
            call.cancel()
            self._load.in_flight.discard(call)

    async def _over_http(
        self,
        what: str,
        call: Callable[[], T],
        seen: Callable[[T], dict[str, Any]] = lambda response: {},
        **asked: Any,
    ) -> T:
        while True:
            operation = self._history.begin(self._name, what, **asked)
            loop = asyncio.get_running_loop()
            try:
                response = await loop.run_in_executor(self._load.threads, call)
            except (OSError, urllib.error.URLError, EOFError, wave.Error, ValueError) as error:
                self._history.end(
                    operation, "unknown", code=type(error).__name__, reason=str(error)
                )
            except Exception as error:  # http.client's own: a body that breaks off
                self._history.end(
                    operation, "unknown", code=type(error).__name__, reason=str(error)
                )
            else:
                self._history.end(operation, "ok", **seen(response))
                return response
            self.give_up_in_time()
            await asyncio.sleep(self.random.uniform(0.1, 0.4))

    def give_up_in_time(self) -> None:
        """Raises GivenUp when the load is over."""
        if time.monotonic() > self._load.deadline:
            raise GivenUp

    def any(self, services: Sequence[T]) -> T:
        """One of the replicas."""
        return self.random.choice(services)

    @property
    def job_service(self) -> Any:
        """A replica of the job service."""
        return self.any(self._system.jobs)

    @property
    def session_service(self) -> Any:
        """A replica of the concatenation service."""
        return self.any(self._system.sessions)

    def new_id(self) -> str:
        """An id that follows from the seed."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def config(self) -> transcript_pb2.RecognitionConfig:
        """Options that nobody else has."""
        return transcript_pb2.RecognitionConfig(
            model=MODEL, language_code="en", prompt=f"p{self.random.getrandbits(32):x}"
        )


class Left(Exception):
    """The caller went away before the answer."""


def samples_in(file: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The samples of a WAV."""
    with wave.open(io.BytesIO(file)) as reader:
        frames = reader.readframes(reader.getnframes())
        if len(frames) != reader.getnframes() * 2:
            raise EOFError("the file breaks off")
    return np.frombuffer(frames, "<i2")


def seen_of_job(response: Any) -> dict[str, Any]:
    """What a job tells of itself."""
    job = response.job
    return {
        "state": job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_"),
        "revision": job.revision,
        "fraction": job.progress.fraction,
        "error": job.error.reason,
    }


def seen_of_event(event: job_pb2.JobEvent) -> dict[str, Any]:
    """What one row of a job's log tells."""
    state, fraction = "", None
    if event.HasField("state_changed"):
        state = job_pb2.JobState.Name(event.state_changed.state).removeprefix("JOB_STATE_")
        fraction = event.state_changed.progress.fraction
    elif event.HasField("progressed"):
        fraction = event.progressed.fraction
    return {
        "revision": event.revision,
        "digest": _digest(event),
        "state": state,
        "fraction": fraction,
        "text": "".join(segment.text for segment in event.segments_added.segments),
    }


def seen_of_transcript(response: Any) -> dict[str, Any]:
    """All that a user sees of a transcript."""
    transcript = response.transcript
    return {
        "text": "".join(segment.text for segment in transcript.segments),
        "digest": _digest(transcript),
    }


def seen_of_session(response: Any) -> dict[str, Any]:
    """What a session tells of itself."""
    session = response.session
    return {
        "state": concatenation_pb2.SessionState.Name(session.state).removeprefix("SESSION_STATE_"),
        "audio_id": session.audio_id,
        "job_id": session.job_id,
        "revision": session.revision,
        "error": session.error.reason or session.job_error,
        "parking": session.parking.reason,
    }


def _seen_of_runs(runs: Sequence[Run]) -> dict[str, Any]:
    return {"runs": [[run.file, run.first, run.count] for run in runs]}


def _digest(message: Any) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:16]


def _failure_of(error: grpc.aio.AioRpcError) -> tuple[Told, str, str]:
    failure = read_failure(error)
    return told_by(failure.code), failure.code.name, failure.reason or failure.message[:200]
