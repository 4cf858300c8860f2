"""What producers wait for: chunks into the object store, then into the database.

Chunks that come while others are being written are written together, as one object: so that an
acknowledgement takes one write and one transaction however fast they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from uuid import UUID, uuid4

from steno.concatenation.domain import (
    Appended,
    Chunk,
    OwnStreamReplaced,
    Session,
    SessionNotOpen,
    StoredChunk,
    WriterReplaced,
)
from steno.concatenation.keys import chunks_key
from steno.concatenation.metrics import CHUNK_SECONDS, IN_FLIGHT, TAKEOVERS, record
from steno.concatenation.recent import RecentObjects
from steno.concatenation.room import Room
from steno.concatenation.store import Store
from steno.concatenation.watch import Told, Watchers
from steno.platform.ending import seen
from steno.platform.errors import InvalidArgument, Unavailable

GROUP_BYTES = 8 * 2**20
"""Length from which on chunks in hand are written before more are taken."""

GROUP_CHUNKS = 256

UNREAD_WORDS = 1000
UNREAD_SECONDS = 60.0
"""How long a producer may leave so many words unread."""

Word = Appended | Told
"""What a stream tells its producer: what became of chunks, and what viewers are told."""


class Ingest:
    """Takes chunks."""

    def __init__(
        self,
        store: Store,
        objects: RecentObjects,
        watchers: Watchers,
        came: Callable[[UUID], None],
        room: Room,
    ) -> None:
        """Takes what it needs.

        Args:
            store: of sessions.
            objects: for the bytes.
            watchers: tell what a stream's producer is told beside acknowledgements.
            came: told when a session has new chunks.
            room: for all chunks that have come and are not written yet.
        """
        self._store = store
        self._objects = objects
        self._watchers = watchers
        self._came = came
        self.room = room
        self._putting: set[asyncio.Task[None]] = set()
        IN_FLIGHT.set_function(lambda: room.used)

    async def append(self, session_id: UUID, chunk: Chunk) -> Session:
        """Takes one chunk.

        Raises:
            SessionNotFound, SessionNotOpen, SessionTooLong: of the session.
            ChunkRefused: of the chunk.
            InvalidArgument: it does not hold whole samples.
        """
        session = await self._store.get(session_id)
        appended = await self.write(session, None, [chunk])
        for refusal in appended.refusals:
            raise refusal.error
        return appended.session

    async def write(self, session: Session, epoch: int | None, chunks: Sequence[Chunk]) -> Appended:
        """Makes chunks durable: the bytes first, for a row must not name what is not there."""
        for chunk in chunks:
            _check_samples(session, chunk)
        known = await self._store.known(session.session_id, [c.sequence for c in chunks])
        key = chunks_key(session.session_id, uuid4())
        stored, parts, offset = [], [], 0
        for chunk in chunks:
            size = len(chunk.content)
            stored.append(StoredChunk(chunk.sequence, chunk.sha256, size, key, offset))
            # What is there already, with these bytes or others, is not written again.
            if chunk.sequence not in known:
                known[chunk.sequence] = chunk.sha256
                parts.append(chunk.content)
                offset += size
        if parts and session.state.ended:
            # Once its chunks are removed nobody would remove these, which have no row.
            raise SessionNotOpen(session)
        with CHUNK_SECONDS.time():
            if parts:
                await self._put(key, b"".join(parts))
            appended = await self._store.append(session.session_id, epoch, stored)
        record(appended)
        self._came(session.session_id)
        return appended

    async def _put(self, key: str, data: bytes) -> None:
        """Writes an object. Its bytes take room until that has ended, whoever has gone meanwhile.

        The object store's client works in a thread, which can't be cancelled.
        """
        putting = asyncio.create_task(self._objects.put(key, data, "application/octet-stream"))
        self._putting.add(putting)
        putting.add_done_callback(self._putting.discard)
        putting.add_done_callback(seen)
        try:
            await asyncio.shield(putting)
        except asyncio.CancelledError:
            if not putting.done():
                self.room.hold(len(data))
                putting.add_done_callback(lambda _: self.room.give(len(data)))
            raise

    async def stream(
        self, taken: Session, chunks: AsyncIterator[Chunk]
    ) -> AsyncGenerator[Word, None]:
        """Takes the chunks of a stream that has taken over; yields what its producer is told.

        Ends when the producer has ended and all is answered, or when the session has.

        Raises:
            WriterReplaced: another producer's stream has taken over.
            OwnStreamReplaced: one of the same producer has.
            SessionNotOpen, SessionTooLong: of the session.
            InvalidArgument: a chunk is wrong.
        """
        if taken.epoch > 1:
            TAKEOVERS.labels("stream").inc()
        said = _Said()
        taking = asyncio.create_task(self._take(taken, chunks, said))
        following = asyncio.create_task(self._follow(taken, said))
        try:
            async for word in _until_done(said, taking, following):
                yield word
        except WriterReplaced as error:
            # What the producer has begun, and given up since, may have been slow on its way.
            now = await self._store.get(taken.session_id)
            if taken.producer_id is not None and now.producer_id == taken.producer_id:
                raise OwnStreamReplaced(error) from error
            raise
        finally:
            taking.cancel()
            following.cancel()
            await asyncio.gather(taking, following, return_exceptions=True)

    async def _take(self, session: Session, chunks: AsyncIterator[Chunk], said: _Said) -> None:
        """Writes what has come, and says so, until the producer ends."""
        inbox = _Inbox(self.room)
        receiving = asyncio.create_task(inbox.receive(chunks, said))
        try:
            while group := await inbox.take():
                appended = await self.write(session, session.epoch, group)
                inbox.written(group)
                del group
                said.add(appended)  # what has taken room is written, and waits for no reader
            await receiving  # raises what was wrong with the last message
        finally:
            receiving.cancel()
            try:
                await asyncio.gather(receiving, return_exceptions=True)
            finally:
                inbox.close()

    async def _follow(self, session: Session, said: _Said) -> None:
        """Says what viewers are told, until the session has ended or another stream writes."""
        watching = self._watchers.watch(session.session_id, session.revision, counted=False)
        async with aclosing(watching) as words:
            async for told in words:
                if told.event.writer_changed > session.epoch:
                    raise WriterReplaced(session.epoch, told.event.writer_changed)
                await said.room()
                said.add(told)
                if told.event.state_changed.HasField("end_time"):
                    return


class _Said:
    """Words that a producer has not read yet."""

    def __init__(self) -> None:
        self._words: asyncio.Queue[Word] = asyncio.Queue()
        self._room = Room(UNREAD_WORDS)

    def add(self, word: Word) -> None:
        """Says one more."""
        self._room.hold(1)
        self._words.put_nowait(word)

    async def room(self) -> None:
        """Waits until more may be said. Raises Unavailable if the producer reads nothing."""
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                self._room.give(await self._room.take(1))
        except TimeoutError:
            raise Unavailable("what the server says is not read; connect again") from None

    async def next(self) -> Word:
        """Waits for the oldest, and takes it."""
        word = await self._words.get()
        self._room.give(1)
        return word

    def rest(self) -> Iterator[Word]:
        """Takes those that are there."""
        while not self._words.empty():
            yield self._words.get_nowait()


class _Inbox:
    """Chunks that have come and are not written yet: about GROUP_BYTES, then the producer waits.

    So it does when other producers have taken the room that there is for all.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0
        self._chunks: list[Chunk] = []
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def receive(self, chunks: AsyncIterator[Chunk], said: _Said) -> None:
        """Puts chunks in until there are no more. Who reads nothing is asked for no more."""
        try:
            async for chunk in chunks:
                size = await self._room.take(len(chunk.content))
                self._taken += size
                async with self._changed:
                    await self._changed.wait_for(self._has_room)
                    self._chunks.append(chunk)
                    self._bytes += len(chunk.content)
                    self._changed.notify_all()
                del chunk  # while the next is waited for
                await said.room()
        finally:
            self._ended = True
            async with self._changed:
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._bytes < GROUP_BYTES and len(self._chunks) < GROUP_CHUNKS

    async def take(self) -> list[Chunk]:
        """Waits for chunks and takes all that are there; none means that no more will come."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks or self._ended)
            taken, self._chunks, self._bytes = self._chunks, [], 0
            self._changed.notify_all()
            return taken

    def written(self, chunks: Sequence[Chunk]) -> None:
        """Chunks that were taken are in the object store."""
        size = sum(len(chunk.content) for chunk in chunks)
        self._taken -= size
        self._room.give(size)

    def close(self) -> None:
        """Nobody waits for the rest."""
        self._room.give(self._taken)


async def _until_done(
    said: _Said, taking: asyncio.Task[None], following: asyncio.Task[None]
) -> AsyncIterator[Word]:
    """Yields what is said until one of the two has ended, then raises what ended it."""
    while not (taking.done() or following.done()):
        hearing = asyncio.ensure_future(said.next())
        try:
            await asyncio.wait({hearing, taking, following}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                yield hearing.result()
        finally:
            hearing.cancel()
    for word in said.rest():
        yield word
    for task in (following, taking):
        if task.done():
            task.result()


def _check_samples(session: Session, chunk: Chunk) -> None:
    whole = session.format.frame_bytes
    if not session.config.is_container and len(chunk.content) % whole:
        raise InvalidArgument.of(
            "chunk.content",
            f"of chunk {chunk.sequence} has {len(chunk.content)} bytes, must be a multiple of "
            f"{whole}: whole samples of all channels",
        )
