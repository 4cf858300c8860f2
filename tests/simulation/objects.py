"""S3 in memory: what `steno.platform.objects.ObjectStore` offers, as unreliable as it may be.

A call is a request that is on its way: it has its effect whether its caller was cancelled or killed
meanwhile, maybe after the caller was told that nobody answers. What is listed may have changed
until it is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from simulation.links import Link
from simulation.loop import Loop, Process
from steno.platform.errors import Unavailable
from steno.platform.objects import ObjectNotFound, UploadedPart

T = TypeVar("T")

PART_BYTES = 32
"""Least length of a part that is not the last, in place of S3's 5 MiB."""
LATEST = 3.5
"""Seconds after which a request has its effect at the latest, if it has one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A change of the bucket: an object that was written, or removed (then it has no content)."""

    time: float
    key: str
    content: bytes | None


@dataclass(slots=True)
class _Upload:
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


class Bucket:
    """The server."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self.loop = loop
        self.link = link
        self.away = False
        self.late = 0.0
        """Probability that a request whose answer is lost has its effect later."""
        self.objects: dict[str, bytes] = {}
        self.log: list[Kept] = []
        self.context = Process("s3").context
        self._uploads: dict[str, _Upload] = {}

    def put(self, key: str, content: bytes) -> None:
        self.objects[key] = content
        self._note(key, content)

    def get(self, key: str) -> bytes:
        """Raises ObjectNotFound."""
        if key not in self.objects:
            raise ObjectNotFound(f"there is no {key}")
        return self.objects[key]

    def remove(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self._note(key, None)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def begin(self, key: str) -> str:
        name = str(len(self._uploads) + 1)
        self._uploads[name] = _Upload(key)
        return name

    def put_part(self, name: str, number: int, content: bytes) -> None:
        self._upload(name).parts[number] = content

    def complete(self, name: str, numbers: list[int]) -> None:
        upload = self._upload(name)
        contents = [upload.parts[number] for number in numbers]
        assert all(len(each) >= PART_BYTES for each in contents[:-1]), "it takes no shorter part"
        self.put(upload.key, b"".join(contents))
        self.abort(name)

    def abort(self, name: str) -> None:
        upload = self._upload(name)
        upload.key = ""

    def _upload(self, name: str) -> _Upload:
        if not self._uploads[name].key:
            raise ObjectNotFound(f"there is no upload {name}")
        return self._uploads[name]

    def _note(self, key: str, content: bytes | None) -> None:
        self.log.append(Kept(self.loop.time(), key, content))
        if self.loop.trace is not None:
            self.loop.trace(f"s3: {key} is {'removed' if content is None else 'written'}")


class ObjectStore:
    """A process's client of the server."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._loop = bucket.loop

    async def put(
        self, key: str, data: bytes, content_type: str = "application/octet-stream"
    ) -> None:
        await self._call(lambda: self._bucket.put(key, data))

    async def get_range(self, key: str, offset: int, size: int) -> bytes:
        return (await self._call(lambda: self._bucket.get(key)))[offset : offset + size]

    async def stat(self, key: str) -> int:
        return len(await self._call(lambda: self._bucket.get(key)))

    async def check(self) -> None:
        """Raises Unavailable if the store is away."""
        await self._call(lambda: None)

    async def remove(self, key: str) -> None:
        await self._call(lambda: self._bucket.remove(key))

    async def remove_prefix(self, prefix: str) -> None:
        for key in await self.list_prefix(prefix):
            await self.remove(key)

    async def list_prefix(self, prefix: str) -> list[str]:
        return await self._call(lambda: self._bucket.keys(prefix))

    def presigned_get(
        self, key: str, expires: timedelta, headers: Mapping[str, str] | None = None
    ) -> str:
        return key

    async def create_multipart(self, key: str, content_type: str) -> str:
        return await self._call(lambda: self._bucket.begin(key))

    async def upload_part(
        self, key: str, upload: str, part_number: int, data: bytes
    ) -> UploadedPart:
        await self._call(lambda: self._bucket.put_part(upload, part_number, data))
        return UploadedPart(part_number, len(data), "")

    async def copy_part(
        self, key: str, upload: str, part_number: int, source_key: str, size: int
    ) -> UploadedPart:
        await self._call(
            lambda: self._bucket.put_part(upload, part_number, self._bucket.get(source_key))
        )
        return UploadedPart(part_number, size, "")

    async def complete_multipart(self, key: str, upload: str, parts: list[UploadedPart]) -> None:
        numbers = [part.part_number for part in parts]
        await self._call(lambda: self._bucket.complete(upload, numbers))

    async def abort_multipart(self, key: str, upload: str) -> None:
        try:
            await self._call(lambda: self._bucket.abort(upload))
        except ObjectNotFound:
            return

    async def _call(self, work: Callable[[], T]) -> T:
        """Has the server do something, now or later, and waits for its answer."""
        bucket, link, loop = self._bucket, self._bucket.link, self._loop
        answer: asyncio.Future[T] = loop.create_future()
        lost = bucket.away or link.loses()
        if lost and not loop.chance(bucket.late):
            await asyncio.sleep(link.delay())
            raise Unavailable("the object store does not answer; try again")

        def come(told: Callable[[Any], None], what: Any) -> None:
            if not answer.done():
                told(what)

        def do() -> None:
            try:
                done = work()
            except Exception as error:
                self._later(link.delay(), come, answer.set_exception, error)
            else:
                self._later(link.delay(), come, answer.set_result, done)

        if not lost:
            self._later(link.delay(), do)
        else:
            self._later(LATEST * loop.random.random(), do)
            gone = Unavailable("the object store does not answer; try again")
            self._later(link.delay(), come, answer.set_exception, gone)
        return await answer

    def _later(self, delay: float, what: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_later(delay, what, *arguments, context=self._bucket.context)
