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
from steno.concatenation.watch import Update, Watchers
from steno.platform.ending import seen
from steno.platform.errors import InvalidArgument, Unavailable

GROUP_BYTES = 8 * 2**20
"""Length from which on chunks in hand are written before more are taken."""

GROUP_CHUNKS = 256

UNREAD_UPDATES = 1000
UNREAD_SECONDS = 60.0
"""How long a producer may leave UNREAD_UPDATES unread."""

StreamUpdate = Appended | Update
"""What a stream sends its producer: what became of chunks, and what viewers are sent."""


class Ingest:
    """Takes chunks."""

    def __init__(
        self,
        store: Store,
        objects: RecentObjects,
        watchers: Watchers,
        notify: Callable[[UUID], None],
        room: Room,
    ) -> None:
        """Takes what it needs.

        Args:
            store: of sessions.
            objects: for the bytes.
            watchers: have what a stream's producer is sent beside acknowledgements.
            notify: called when a session has new chunks.
            room: for all chunks that have come and are not written yet.
        """
        self._store = store
        self._objects = objects
        self._watchers = watchers
        self._notify = notify
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
        self._notify(session.session_id)
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
    ) -> AsyncGenerator[StreamUpdate, None]:
        """Takes the chunks of a stream that has taken over; yields what its producer is sent.

        Ends when the producer has ended and all is answered, or when the session has.

        Raises:
            WriterReplaced: another producer's stream has taken over.
            OwnStreamReplaced: one of the same producer has.
            SessionNotOpen, SessionTooLong: of the session.
            InvalidArgument: a chunk is wrong.
        """
        if taken.epoch > 1:
            TAKEOVERS.labels("stream").inc()
        unread = _Unread()
        taking = asyncio.create_task(self._take(taken, chunks, unread))
        following = asyncio.create_task(self._follow(taken, unread))
        try:
            async for update in _until_done(unread, taking, following):
                yield update
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

    async def _take(self, session: Session, chunks: AsyncIterator[Chunk], unread: _Unread) -> None:
        """Writes what has come, and acknowledges it, until the producer ends."""
        inbox = _Inbox(self.room)
        receiving = asyncio.create_task(inbox.receive(chunks, unread))
        try:
            while group := await inbox.take():
                appended = await self.write(session, session.epoch, group)
                inbox.written(group)
                del group
                unread.add(appended)  # what has taken room is written, and waits for no reader
            await receiving  # raises what was wrong with the last message
        finally:
            receiving.cancel()
            try:
                await asyncio.gather(receiving, return_exceptions=True)
            finally:
                inbox.close()

    async def _follow(self, session: Session, unread: _Unread) -> None:
        """Passes on what viewers are sent, until the session has ended or another stream writes."""
        watching = self._watchers.watch(session.session_id, session.revision, counted=False)
        async with aclosing(watching) as updates:
            async for update in updates:
                if update.event.writer_changed > session.epoch:
                    raise WriterReplaced(session.epoch, update.event.writer_changed)
                await unread.room()
                unread.add(update)
                if update.event.state_changed.HasField("end_time"):
                    return


class _Unread:
    """What a producer has been sent and has not read yet."""

    def __init__(self) -> None:
        self._updates: asyncio.Queue[StreamUpdate] = asyncio.Queue()
        self._room = Room(UNREAD_UPDATES)

    def add(self, update: StreamUpdate) -> None:
        """Adds one more, whether there is room or not."""
        self._room.hold(1)
        self._updates.put_nowait(update)

    async def room(self) -> None:
        """Waits until there is room. Raises Unavailable if the producer reads nothing."""
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                self._room.give(await self._room.take(1))
        except TimeoutError:
            raise Unavailable("the responses of the stream are not read; connect again") from None

    async def next(self) -> StreamUpdate:
        """Waits for the oldest, and takes it."""
        update = await self._updates.get()
        self._room.give(1)
        return update

    def rest(self) -> Iterator[StreamUpdate]:
        """Takes those that are there."""
        while not self._updates.empty():
            yield self._updates.get_nowait()


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

    async def receive(self, chunks: AsyncIterator[Chunk], unread: _Unread) -> None:
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
                await unread.room()
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
    unread: _Unread, taking: asyncio.Task[None], following: asyncio.Task[None]
) -> AsyncIterator[StreamUpdate]:
    """Yields what comes until one of the two has ended, then raises what ended it."""
    while not (taking.done() or following.done()):
        reading = asyncio.ensure_future(unread.next())
        try:
            await asyncio.wait({reading, taking, following}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                yield reading.result()
        finally:
            reading.cancel()
    for update in unread.rest():
        yield update
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
