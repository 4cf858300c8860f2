"""Files on their way in: parts in parallel straight to the object store, or one stream."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast
from uuid import uuid4

from steno.cli.failures import CliError, Exit
from steno.cli.reading import in_reader, sendable

if TYPE_CHECKING:
    from io import BufferedReader

    import urllib3

    from steno.cli.connection import Services
    from steno.v1.upload_pb2 import Audio, Upload, UploadPart

FILES_AT_ONCE = 4
PARTS_AT_ONCE = 4
STDIN = "-"

_BLOCK_BYTES = 2**20
_PAUSE_SECONDS = 1.0
_VERIFIED_BYTES_PER_SECOND = 5e6
"""At least so fast the service reads what has landed."""
_SEND_AGAIN = ("PARTS_MISSING", "SIZE_MISMATCH")
"""The store has lost something."""
_STREAM_SECONDS = 24 * 3600.0

T = TypeVar("T")

Begin = Callable[[int | None], None]
"""Told how many bytes a file has; None if nobody knows."""
Advance = Callable[[int], None]
"""Told how many bytes more, or fewer, are on their way."""


class Stopped(Exception):
    """The command ends, so nothing more is read."""


class Uploader:
    """Uploads files; leave it with `close`, which also stops what is being sent."""

    def __init__(self, services: Services) -> None:
        import urllib3

        self._services = services
        self._slots = asyncio.Semaphore(FILES_AT_ONCE)
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(FILES_AT_ONCE * PARTS_AT_ONCE, "upload")
        self._http = urllib3.PoolManager(
            maxsize=FILES_AT_ONCE * PARTS_AT_ONCE,
            timeout=urllib3.Timeout(connect=5, read=120),
            retries=False,
            blocksize=_BLOCK_BYTES,
        )

    def close(self) -> None:
        """Ends what is being sent, without waiting for it."""
        self._stopping.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    async def upload(self, path: str, begin: Begin, advance: Advance) -> Audio:
        """Sends a file, or stdin for `-`; returns the audio that it became.

        That it can't be decoded may be known only later.

        Args:
            path: of the file.
            begin: told when it is this file's turn.
            advance: told of each block.

        Raises CliError. What had landed of a file that failed is removed.
        """
        async with self._slots:
            if path == STDIN:
                begin(None)
                audio = await self._stream(advance)
            else:
                audio = await self._in_parts(Path(path), begin, advance)
        if audio.HasField("rejection"):
            raise CliError(audio.rejection.message, Exit.REFUSED, reason="AUDIO_REJECTED")
        return audio

    async def _in_parts(self, path: Path, begin: Begin, advance: Advance) -> Audio:
        from steno.v1.upload_pb2 import AbortUploadRequest, CreateUploadRequest

        stub = await self._services.uploads()
        try:
            size_bytes, sha256 = await self._in_thread(self._measure, path)
        except OSError as error:
            raise unreadable(error) from error
        begin(size_bytes)
        request = CreateUploadRequest(
            filename=sendable(path.name),
            size_bytes=size_bytes,
            content_type=mimetypes.guess_type(path.name)[0] or "",
            sha256=sha256,
            request_id=str(uuid4()),
        )
        upload = (await self._services.call("upload", stub.CreateUpload, request)).upload
        try:
            return await self._send_and_complete(path, upload, advance)
        except BaseException:
            # Best effort: the service removes what is left in any case, only later.
            with suppress(Exception):
                await stub.AbortUpload(AbortUploadRequest(upload_id=upload.upload_id), timeout=2)
            raise

    async def _send_and_complete(self, path: Path, upload: Upload, advance: Advance) -> Audio:
        """Sends what has not landed, asks what is left, and again, until all has landed.

        Goes on as long as now and then a part lands.
        """
        from steno.v1.upload_pb2 import GetUploadRequest

        stub = await self._services.uploads()
        clock = asyncio.get_running_loop().time
        give_up, most = clock() + self._services.patience, 0
        while True:
            missing = [part for part in upload.parts if not part.landed]
            landed = len(upload.parts) - len(missing)
            if landed > most:
                give_up, most = clock() + self._services.patience, landed
            problem = await self._send(path, missing, advance)
            if problem is None:
                try:
                    return await self._complete(upload)
                except CliError as error:
                    if error.reason not in _SEND_AGAIN:
                        raise
                    problem = error
            if clock() > give_up:
                raise CliError(
                    f"the object store does not take it: {problem}", Exit.UNREACHABLE
                ) from problem
            await asyncio.sleep(_PAUSE_SECONDS)
            request = GetUploadRequest(upload_id=upload.upload_id)
            upload = (await self._services.call("upload", stub.GetUpload, request)).upload

    async def _complete(self, upload: Upload) -> Audio:
        """The service reads the file once more, and goes on when the time of a call is over."""
        from steno.v1.upload_pb2 import CompleteUploadRequest

        stub = await self._services.uploads()
        request = CompleteUploadRequest(upload_id=upload.upload_id)
        patience = self._services.patience + upload.size_bytes / _VERIFIED_BYTES_PER_SECOND
        response = await self._services.call(
            "upload", stub.CompleteUpload, request, timeout=60, patience=patience
        )
        return response.audio

    async def _send(
        self, path: Path, parts: Sequence[UploadPart], advance: Advance
    ) -> Exception | None:
        """Sends parts in parallel, until one fails; returns why."""
        waiting = iter(parts)
        failures: list[Exception] = []

        async def send_some() -> None:
            for part in waiting:
                if failures:
                    return
                try:
                    await self._in_thread(self._put, path, part, _in_loop(advance))
                except Stopped:
                    return
                except Exception as error:
                    failures.append(error)

        await asyncio.gather(*(send_some() for _ in range(PARTS_AT_ONCE)))
        return failures[0] if failures else None

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *arguments)

    def _measure(self, path: Path) -> tuple[int, str]:
        """Length and SHA-256 of a file."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                if self._stopping.is_set():
                    raise Stopped
                digest.update(block)
            return file.tell(), digest.hexdigest()

    def _put(self, path: Path, part: UploadPart, advance: Advance) -> None:
        """Sends one part; what a failed try has counted is taken back."""
        with path.open("rb") as file:
            window = _Window(file, part, advance, self._stopping)
            try:
                response = self._http.request(
                    "PUT",
                    part.url,
                    body=window,  # type: ignore[arg-type]  # anything with read() will do
                    headers={"Content-Length": str(part.size_bytes)},
                )
                _check(response)
            except BaseException:
                advance(-window.sent)
                raise

    async def _stream(self, advance: Advance) -> Audio:
        """Sends stdin while it is being written."""
        from steno.v1.upload_pb2 import ListAudioRequest, UploadAudioHeader, UploadAudioRequest

        stub = await self._services.uploads()
        # What was read from a pipe can't be read again: make sure first that somebody listens.
        await self._services.call("upload", stub.ListAudio, ListAudioRequest(page_size=1))

        async def requests() -> AsyncIterator[UploadAudioRequest]:
            header = UploadAudioHeader(filename="stdin", request_id=str(uuid4()))
            yield UploadAudioRequest(header=header)
            read = cast("BufferedReader", sys.stdin.buffer).read1
            while block := await in_reader(read, _BLOCK_BYTES):
                advance(len(block))
                yield UploadAudioRequest(chunk=block)

        try:
            return (await stub.UploadAudio(requests(), timeout=_STREAM_SECONDS)).audio
        except Exception as error:
            failure = self._services.explain("upload", error)
            if failure.reason == Exit.UNREACHABLE.name:  # it was reached a moment ago
                hint = "save it to a file and send that: it can be sent again"
                failure = CliError("the stream broke off", Exit.UNREACHABLE, hint=hint)
            raise failure from error


class _Window:
    """One part of an open file, as something to read from."""

    def __init__(
        self, file: BinaryIO, part: UploadPart, advance: Advance, stopping: threading.Event
    ) -> None:
        file.seek(part.offset_bytes)
        self.sent = 0
        self._file = file
        self._size = part.size_bytes
        self._advance = advance
        self._stopping = stopping

    def read(self, size: int = -1) -> bytes:
        if self._stopping.is_set():
            raise Stopped
        left = self._size - self.sent
        block = self._file.read(left if size < 0 else min(size, left))
        self.sent += len(block)
        self._advance(len(block))
        return block


def _in_loop(advance: Advance) -> Advance:
    """The same, called from another thread."""
    loop = asyncio.get_running_loop()

    def call(size: int) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(advance, size)

    return call


def _check(response: urllib3.BaseHTTPResponse) -> None:
    if response.status >= 300:
        raise OSError(f"HTTP status {response.status}")


def check_readable(path: str) -> None:
    """Raises CliError if a file, or stdin for `-`, can't be read."""
    if path == STDIN:
        if sys.stdin.isatty():
            raise CliError("nothing comes from stdin; use: ... | steno transcribe -", Exit.USAGE)
        return
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise unreadable(error).about(path) from error


def unreadable(error: OSError) -> CliError:
    """A file of this machine that can't be read."""
    return CliError((error.strerror or str(error)).lower(), Exit.USAGE, reason="UNREADABLE")
