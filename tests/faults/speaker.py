"""Clients that are recorded live: chunks from one to three producers, shuffled and repeated."""

from __future__ import annotations

import asyncio
import io
import urllib.request
import wave
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np

from faults.calls import (
    CALL_SECONDS,
    GivenUp,
    failure_of,
    seen_of_runs,
    seen_of_session,
    seen_of_session_event,
)
from faults.jobs import JobClient
from faults.oracle import CHUNK_BLOCKS, Run, Sound, runs_of, samples_of
from recordings import Samples, decoded, encoded, urls_in, wav
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2

LIVE = 0.15
"""Share of sessions that are heard while they happen."""
LARGE = 0.02
"""Share of long sessions whose file is put together from parts: it has more than 5 MiB."""
OFTEN = 5
"""How many times as large these shares are where each place of an effect is to be reached."""
LARGE_CHUNK_BLOCKS = 50 * CHUNK_BLOCKS


class Speaker(JobClient):
    """Speaks, one session after the other."""

    untidy = True
    """Leaves some sessions open, and deletes some."""

    async def speak(self, file: int) -> None:
        """Opens a session, sends its chunks, and ends it."""
        producers, streams = self.random.choice((1, 1, 2, 3)), self.random.random() < 0.7
        # One stream takes hundreds of chunks a second, calls of AppendChunk some dozens.
        fast = streams and producers == 1
        # Raw samples, files that follow one another, or one file cut anywhere.
        form = self.random.choice((*[""] * 10, "files", "stream"))
        long = fast and not form
        count = self.random.randint(200, 2500) if long else self.random.randint(50, 200)
        size = CHUNK_BLOCKS
        often = OFTEN if self.system.shape.crashes else 1
        if long and self.random.random() < LARGE * often:
            count, size = self.random.randint(170, 200), LARGE_CHUNK_BLOCKS
        sound = Sound(file, count * size)
        holes = 0 if form else self.random.choice((0, 0, 0, 1, 2))
        missing = self.random.sample(range(1, count - 1), holes)
        sound.missing = [(sequence * size, size) for sequence in sorted(missing)]
        config = concatenation_pb2.SessionConfig(
            **_FORMS[form],
            live_results=self.random.random() < LIVE * often,
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
            live=config.live_results,
            options=config.final_job_config.prompt,
            form=form,
            chunk_blocks=size,
            **sound.told,
        )
        session_id = created.session.session_id
        if self.random.random() < 0.05:
            await self._look_in_session_list(created.session)
        chunks = _chunks_of(sound, form, size)
        for sequence in missing:
            del chunks[sequence]
        watching = None
        if self.random.random() < 0.3:
            watching = asyncio.create_task(self.watch_session(session_id))
        try:
            await self._send_chunks(session_id, chunks, producers, streams)
            if not form and self.random.random() < 0.25:  # else it is not decoded yet
                await self._read_playlist(session_id)
            await self._end(session_id)
        finally:
            if watching:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _end(self, session_id: str) -> None:
        fate = self.random.random() if self.untidy else 1.0
        if fate < 0.05:
            await self.delete("delete_session", session_id)
        elif fate > 0.1:  # else it is left open
            await self.close(session_id)
            if fate < 0.2:
                await self.delete("delete_session", session_id)

    async def _look_in_session_list(self, session: concatenation_pb2.Session) -> None:
        request = concatenation_pb2.ListSessionsRequest(labels=session.labels)
        await self.persist(
            "list_sessions",
            lambda timeout: self.session_service.ListSessions(request, timeout=timeout),
            lambda response: {"ids": [session.session_id for session in response.sessions]},
            made=[session.session_id],
        )

    async def _send_chunks(
        self, session_id: str, chunks: dict[int, bytes], producers: int, streams: bool
    ) -> None:
        """Sends all, from several producers of which one may stream: shuffled, and some twice."""
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
            operation = self.history.begin(
                self.name, "stream_audio", session_id=session_id, sequences=left
            )
            told, code, reason = "ok", "OK", ""
            fresh: list[int] = []
            refused: list[list[Any]] = []
            call = self.session_service.StreamAudio(
                self._messages(start, chunks, left),
                timeout=self.random.choice((0.3, 2, CALL_SECONDS)),
            )
            try:
                async for response in self.caught(call):
                    if response.HasField("ready"):
                        epoch = response.ready.epoch
                    fresh += response.ack.sequences
                    if response.HasField("refusal"):
                        refused.append([response.refusal.sequence, response.refusal.reason])
            except grpc.aio.AioRpcError as error:
                told, code, reason = failure_of(error)
            acked.update(fresh)
            self.history.end(
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

    async def close(self, session_id: str) -> None:
        """Closes a session, and reads its recording and its transcript."""
        close = concatenation_pb2.CloseSessionRequest(session_id=session_id)
        await self.persist(
            "close_session",
            lambda timeout: self.session_service.CloseSession(close, timeout=timeout),
            session_id=session_id,
        )
        session = await self.finished(session_id)
        await self.read_recording(session_id)
        if self.random.random() < 0.25:
            await self._read_playlist(session_id)
        if session.job_id:
            await self.follow(session.job_id)

    async def finished(self, session_id: str) -> concatenation_pb2.Session:
        """Waits until a closed session has become what it becomes."""
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

    async def read_recording(self, session_id: str) -> None:
        """Reads where each sample of a recording is from."""

        def read(url: str) -> list[Run]:
            with urllib.request.urlopen(url, timeout=CALL_SECONDS) as response:
                return runs_of(samples_in(response.read()))

        urls = self._recordings(session_id, concatenation_pb2.RECORDING_FORM_FILE)
        await self.over_http("read_recording", urls, read, seen_of_runs, session_id=session_id)

    async def _read_playlist(self, session_id: str) -> None:
        """Plays what is there of a recording."""

        def read(playlist: str) -> tuple[str, bytes]:
            media = b""
            for url in urls_in(playlist):
                with urllib.request.urlopen(url, timeout=CALL_SECONDS) as response:
                    media += response.read()
            return playlist, media

        def seen(read: tuple[str, bytes]) -> dict[str, Any]:
            playlist, media = read
            runs = runs_of(decoded(media)) if "#EXTINF" in playlist else []
            return seen_of_runs(runs) | {"ended": "#EXT-X-ENDLIST" in playlist}

        playlists = self._recordings(session_id, concatenation_pb2.RECORDING_FORM_PLAYLIST)
        await self.over_http("read_playlist", playlists, read, seen, session_id=session_id)

    async def _recordings(
        self, session_id: str, form: concatenation_pb2.RecordingForm.ValueType
    ) -> AsyncIterator[str]:
        """Where the file is, or the playlist itself."""
        request = concatenation_pb2.GetRecordingRequest(session_id=session_id, form=form)
        while True:
            recording = await self.persist(
                "get_recording",
                lambda timeout: self.session_service.GetRecording(request, timeout=timeout),
                session_id=session_id,
            )
            yield recording.url or recording.playlist

    async def watch_session(self, session_id: str) -> None:
        """Watches a session from its beginning to its end."""
        seen = 0
        while True:
            operation = self.history.begin(
                self.name, "watch_session", session_id=session_id, after=seen
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
                async for response in self.caught(call):
                    if response.HasField("event"):
                        seen = response.event.revision
                        events.append(seen_of_session_event(response.event))
            except grpc.aio.AioRpcError as error:
                told, code, reason = failure_of(error)
            finally:
                self.history.end(operation, told, events=events, code=code, reason=reason)  # type: ignore[arg-type]
            if told == "ok":
                return
            self.give_up_in_time()
            await asyncio.sleep(0.1)


_FORMS: dict[str, dict[str, Any]] = {
    "": {"encoding": concatenation_pb2.AUDIO_ENCODING_LINEAR16, "sample_rate_hertz": 16_000},
    "files": {
        "encoding": concatenation_pb2.AUDIO_ENCODING_CONTAINER,
        "chunk_form": concatenation_pb2.CHUNK_FORM_FILES,
    },
    "stream": {
        "encoding": concatenation_pb2.AUDIO_ENCODING_CONTAINER,
        "chunk_form": concatenation_pb2.CHUNK_FORM_STREAM,
    },
}
"""What a session is told of its chunks."""


def _chunks_of(sound: Sound, form: str, size: int) -> dict[int, bytes]:
    """All chunks of a sound, of so many blocks each, by their sequence."""
    count = sound.blocks // size
    if form == "stream":
        data = encoded(samples_of(sound.file, 0, sound.blocks), "flac")
        cuts = [len(data) * number // count for number in range(count + 1)]
        return {number: data[cuts[number] : cuts[number + 1]] for number in range(count)}
    pieces = {number: samples_of(sound.file, number * size, size) for number in range(count)}
    return {
        number: wav(piece) if form == "files" else piece.tobytes()
        for number, piece in pieces.items()
    }


def samples_in(file: bytes) -> Samples:
    """The samples of a WAV."""
    with wave.open(io.BytesIO(file)) as reader:
        frames = reader.readframes(reader.getnframes())
        if len(frames) != reader.getnframes() * 2:
            raise EOFError("the file breaks off")
    return np.frombuffer(frames, "<i2")
