"""Callers of ConcatenationService: each has a session recorded, and follows it to its end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from simulation.calls import Lost
from simulation.clients import PAUSE, Caller, Work
from simulation.history import AWAY, Call, Outcome, Watch
from simulation.objects import Bucket
from simulation.session_service import Replica
from steno.concatenation.domain import (
    ChunkRefused,
    NothingRecorded,
    OwnStreamReplaced,
    RequestIdReused,
    SessionNotFound,
    SessionNotOpen,
    SessionTooLong,
    WriterReplaced,
)
from steno.platform.objects import ObjectNotFound
from steno.v1 import concatenation_pb2 as pb

STREAM_SECONDS = 8.0
"""After which a producer opens another stream, whatever becomes of the one that it has."""
PATIENCE = 30.0
"""Seconds for which a caller waits until a session can be opened."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk that a producer has to send."""

    sequence: int
    content: bytes

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.content).digest()


@dataclass(frozen=True, slots=True)
class Manners:
    """How a producer sends.

    Attributes:
        streams: by StreamAudio, else by calls of AppendChunk.
        at_once: calls of AppendChunk that are made at the same time.
        absent: sequences that it never sends.
        late: those that it sends last.
        repeats: probability that it sends a chunk once more.
        forges: probability that it also sends other bytes as the same chunk.
        cuts: probability that its stream breaks when it has heard something.
        ghosts: probability that a stream that it has given up comes in once more, late.
        pause: longest time between two chunks.
        gives_up: seconds after which it sends nothing more.
        insists: takes over again from who has taken over.
        sums: tells the SHA-256 of what it sends.
    """

    streams: bool = True
    at_once: int = 1
    absent: frozenset[int] = frozenset()
    late: frozenset[int] = frozenset()
    repeats: float = 0.0
    forges: float = 0.0
    cuts: float = 0.0
    ghosts: float = 0.0
    pause: float = 0.2
    gives_up: float | None = None
    insists: bool = False
    sums: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller wants.

    Attributes:
        tenant: on whose account.
        config: of the session.
        pieces: its chunks.
        manners: of who sends them.
        next_pieces: of a producer that takes over.
        next_manners: its manners; None if there is none.
        next_after: seconds after which it does.
        asked_at_once: how often the session is opened at the same time.
        reuses: the request_id is used for another session, too.
        watchers: how many follow it.
        cuts: probability that a watcher's stream is cut after a message.
        reads: how often the recording is asked for.
        closes: seconds after which it is closed; 0: when all is sent; None: never.
        deletes: seconds after which it is deleted; 0: when it has ended; None: never.
    """

    tenant: str
    config: pb.SessionConfig
    pieces: Sequence[Piece]
    manners: Manners
    next_pieces: Sequence[Piece] = ()
    next_manners: Manners | None = None
    next_after: float = 0.0
    asked_at_once: int = 1
    reuses: bool = False
    watchers: int = 1
    cuts: float = 0.0
    reads: int = 0
    closes: float | None = 0.0
    deletes: float | None = None


class SessionCaller(Caller):
    """Is told what the servicer's table says of errors."""

    deadline = 4.0

    async def _ask(self, work: Work, replica: Replica) -> Any:
        try:
            return await work(replica)
        except ObjectNotFound as error:
            raise Lost(f"UNAVAILABLE: {error}") from error


@dataclass
class _Opened:
    """A stream that a producer has open.

    Attributes:
        call: it.
        epoch: that the server has told; 0 before.
        sent: what it has sent and is not answered.
        taken: what was acknowledged.
    """

    call: Call
    epoch: int = 0
    sent: dict[int, list[Call]] = field(default_factory=dict)
    taken: dict[int, Piece] = field(default_factory=dict)


class Producer:
    """Sends the chunks of a session until each is answered."""

    def __init__(
        self,
        caller: SessionCaller,
        session_id: str,
        producer_id: UUID,
        pieces: Iterable[Piece],
        manners: Manners,
    ) -> None:
        self._caller = caller
        self._session_id = session_id
        self._producer_id = producer_id
        self._manners = manners
        chosen = [piece for piece in pieces if piece.sequence not in manners.absent]
        chosen.sort(key=lambda piece: (piece.sequence in manners.late, piece.sequence))
        self._left = {piece.sequence: piece for piece in chosen}
        self._over = False

    async def run(self) -> None:
        """Sends until nothing is left, or nothing is taken any more."""
        loop, manners = self._caller.loop, self._manners
        with suppress(TimeoutError):
            async with asyncio.timeout(manners.gives_up):
                if manners.streams:
                    await self._stream()
                else:
                    await self._append()
        if loop.trace is not None:
            loop.trace(f"{self._caller.name} has sent all but {[*self._left]}")

    # By single calls

    async def _append(self) -> None:
        sending = [self._append_some() for _ in range(self._manners.at_once)]
        await asyncio.gather(*sending)

    async def _append_some(self) -> None:
        while self._left and not self._over:
            piece = self._left.pop(next(iter(self._left)))
            both = self._with_repeats(piece)
            if self._caller.loop.chance(self._manners.forges):
                both.insert(int(len(both) * self._caller.loop.random.random()), _forged(piece))
            for each in both:
                await self._append_one(each)
            await self._caller.pause(self._manners.pause)

    async def _append_one(self, piece: Piece) -> None:
        request = pb.AppendChunkRequest(session_id=self._session_id, chunk=self._chunk(piece))
        try:
            await self._caller.until_answered(
                "chunk",
                lambda replica: replica.append(request),
                session_id=self._session_id,
                piece=piece,
                epoch=None,
            )
        except ChunkRefused:
            return
        except (SessionNotFound, SessionNotOpen, SessionTooLong):
            self._over = True

    def _with_repeats(self, piece: Piece) -> list[Piece]:
        return [piece] * (1 + self._caller.loop.chance(self._manners.repeats))

    def _chunk(self, piece: Piece) -> pb.Chunk:
        digest = piece.sha256.hex() if self._manners.sums else ""
        return pb.Chunk(sequence=piece.sequence, content=piece.content, sha256=digest)

    # By streams

    async def _stream(self) -> None:
        epoch = 0
        while self._left and not self._over:
            opened = self._opened(epoch)
            try:
                async with asyncio.timeout(STREAM_SECONDS):
                    await self._through(opened, epoch)
                opened.call.outcome = Outcome.OK
            except (Lost, TimeoutError, OwnStreamReplaced, *AWAY) as error:
                opened.call.error = error
                if self._caller.loop.chance(self._manners.ghosts):
                    self._caller.loop.create_task(self._come_late(epoch))
            except WriterReplaced as error:
                opened.call.error, opened.call.outcome = error, Outcome.FAILED
                self._over = not self._manners.insists
                opened.epoch = 0
            except Exception as error:
                opened.call.error, opened.call.outcome = error, Outcome.FAILED
                self._over = True
            finally:
                opened.call.ended = self._caller.loop.time()
                opened.call.about |= {"is": opened.epoch, "ends": self._over}
                opened.call.about["left"] = [each for each in opened.sent.values() if each]
                self._say(f"stream ends: {opened.call.error!r}")
            epoch = opened.epoch
            if self._left and not self._over:
                await self._caller.pause(2 * PAUSE)

    def _opened(self, epoch: int) -> _Opened:
        """A stream that goes on from the one of an epoch."""
        about = {"session_id": self._session_id, "epoch": epoch, "producer": self._producer_id}
        call = Call(self._caller.name, "stream", about, self._caller.loop.time())
        self._caller.history.calls.append(call)
        return _Opened(call)

    async def _come_late(self, epoch: int) -> None:
        """A stream was held up on its way: the server sees it when its caller is long gone."""
        await self._caller.pause(1.0)
        call = self._opened(epoch).call
        self._say("a stream comes in late")
        try:
            async with aclosing(self._stream_from(epoch)[0]) as responses:
                async for response in responses:
                    if response.HasField("ready"):
                        call.about["is"] = response.ready.epoch
                    break
        except Exception as error:  # nobody hears it
            call.error = error
        call.ended = self._caller.loop.time()

    def _stream_from(self, epoch: int) -> tuple[Any, Any]:
        """Opens a stream; returns what comes from it, and where to send to it."""
        calls, replica = self._caller.calls, self._caller.replica()
        upstream = calls.upstream()
        start = pb.StreamAudioStart(
            session_id=self._session_id, epoch=epoch, producer_id=str(self._producer_id)
        )
        stream = calls.stream(replica.process, lambda: replica.stream(upstream), upstream)
        self._say(f"opens a stream to {replica.process.name}")
        upstream.send(pb.StreamAudioRequest(start=start))
        return stream, upstream

    async def _through(self, opened: _Opened, epoch: int) -> None:
        """Opens a stream and goes through it to its end."""
        loop = self._caller.loop
        stream, upstream = self._stream_from(epoch)
        sending: asyncio.Task[None] | None = None
        try:
            async with aclosing(stream) as responses:
                async for response in responses:
                    match response.WhichOneof("payload"):
                        case "ready":
                            opened.epoch = response.ready.epoch
                            sending = loop.create_task(self._send(opened, upstream))
                        case "ack":
                            self._acked(opened, response.ack)
                        case "refusal":
                            self._refused(opened, response.refusal)
                        case "state_changed" if response.state_changed.HasField("end_time"):
                            self._over = True
                    if loop.chance(self._manners.cuts):
                        raise Lost("the producer has cut it")
        finally:
            if sending is not None:
                sending.cancel()

    async def _send(self, opened: _Opened, upstream: Any) -> None:
        for piece in [*self._left.values()]:
            for each in self._with_repeats(piece):
                self._send_one(opened, upstream, each)
            await self._caller.pause(self._manners.pause)
        forged = (_forged(each) for each in opened.taken.values())
        for piece in [each for each in forged if self._caller.loop.chance(self._manners.forges)]:
            self._send_one(opened, upstream, piece)
        upstream.send(None)

    def _send_one(self, opened: _Opened, upstream: Any, piece: Piece) -> None:
        call = Call(
            self._caller.name,
            "chunk",
            {"session_id": self._session_id, "piece": piece, "epoch": opened.epoch},
            self._caller.loop.time(),
        )
        self._caller.history.calls.append(call)
        opened.sent.setdefault(piece.sequence, []).append(call)
        upstream.send(pb.StreamAudioRequest(chunk=self._chunk(piece)))

    def _acked(self, opened: _Opened, ack: pb.ChunkAck) -> None:
        for sequence in ack.sequences:
            calls = opened.sent[sequence]
            piece = opened.taken.setdefault(sequence, calls[0].about["piece"])
            call = next(call for call in calls if call.about["piece"] == piece)
            calls.remove(call)
            call.outcome, call.ended, call.answer = Outcome.OK, self._caller.loop.time(), ack
            self._answered(call)
            self._say(f"chunk {sequence} is acknowledged")

    def _refused(self, opened: _Opened, refusal: pb.ChunkRefusal) -> None:
        calls, piece = opened.sent[refusal.sequence], opened.taken.get(refusal.sequence)
        call = next((call for call in calls if call.about["piece"] != piece), calls[0])
        calls.remove(call)
        call.outcome, call.ended = Outcome.FAILED, self._caller.loop.time()
        call.about["reason"] = refusal.reason
        self._answered(call)
        self._say(f"chunk {refusal.sequence} is refused: {refusal.reason}")

    def _answered(self, call: Call) -> None:
        piece = call.about["piece"]
        if self._left.get(piece.sequence) == piece:
            del self._left[piece.sequence]

    def _say(self, what: str) -> None:
        if self._caller.loop.trace is not None:
            self._caller.loop.trace(f"{self._caller.name}: {what}")


def _forged(piece: Piece) -> Piece:
    """Other bytes under the same number."""
    return Piece(piece.sequence, piece.content + piece.content[-2:])


class Client:
    """Who has a session recorded: producers, watchers, readers."""

    def __init__(self, caller: SessionCaller, bucket: Bucket, wishes: Wishes) -> None:
        self._caller = caller
        self._loop = caller.loop
        self._bucket = bucket
        self._wishes = wishes
        self._session_id = ""

    async def run(self) -> None:
        """Sees to a session until nothing more is to come of it."""
        wishes = self._wishes
        await self._caller.pause(0.2)
        request_id = self._uuid()
        request = pb.CreateSessionRequest(
            config=wishes.config,
            display_name=self._caller.name,
            labels={"of": self._caller.name},
            request_id=str(request_id),
        )
        try:
            opened = await self._all(
                [self._open(request) for _ in range(self._wishes.asked_at_once)]
            )
        except Lost:
            return
        session_id = self._session_id = opened[0].session.session_id
        beside = [self._watch(session_id) for _ in range(wishes.watchers)]
        beside += [self._record(session_id), self._read(session_id)]
        if wishes.reuses:
            beside.append(self._reuse(request))
        if wishes.deletes:
            beside.append(self._delete(session_id, wishes.deletes))
        await self._all(beside)
        await self._look(session_id)
        if wishes.deletes == 0:
            await self._delete(session_id, 0)

    async def come_back(self, within: float) -> None:
        """Sends a chunk once more, and one that is new, when all is over."""
        await self._caller.pause(within)
        if self._session_id:
            pieces = [*self._wishes.pieces[:1], Piece(1000, b"late")]
            await self._produce(self._session_id, pieces, Manners(streams=False), 0.0)

    async def _open(self, request: pb.CreateSessionRequest) -> pb.CreateSessionResponse:
        tenant = self._wishes.tenant
        return await self._caller.until_answered(  # type: ignore[no-any-return]
            "create",
            lambda replica: replica.create(request, tenant),
            within=PATIENCE,
            request=request.request_id,
            tenant=tenant,
        )

    async def _reuse(self, request: pb.CreateSessionRequest) -> None:
        """The same request_id for another session."""
        other = pb.CreateSessionRequest()
        other.CopyFrom(request)
        other.display_name = "another"
        with suppress(RequestIdReused, Lost):
            await self._caller.until_answered(
                "reuse",
                lambda replica: replica.create(other, self._wishes.tenant),
                within=0.0,
                request=request.request_id,
                tenant=self._wishes.tenant,
            )

    async def _record(self, session_id: str) -> None:
        """Sends what there is to be sent, and closes."""
        wishes = self._wishes
        producers = [self._produce(session_id, wishes.pieces, wishes.manners, 0.0)]
        if wishes.next_manners is not None:
            producers.append(
                self._produce(
                    session_id, wishes.next_pieces, wishes.next_manners, wishes.next_after
                )
            )
        if wishes.closes:
            producers.append(self._close(session_id, wishes.closes))
        await self._all(producers)
        if wishes.closes == 0:
            await self._close(session_id, 0.0)

    async def _produce(
        self, session_id: str, pieces: Sequence[Piece], manners: Manners, after: float
    ) -> None:
        await asyncio.sleep(after)
        await Producer(self._caller, session_id, self._uuid(), pieces, manners).run()

    async def _close(self, session_id: str, after: float) -> None:
        await asyncio.sleep(after)
        with suppress(SessionNotFound):
            await self._caller.until_answered(
                "close", lambda replica: replica.close(session_id), session_id=session_id
            )

    async def _delete(self, session_id: str, after: float) -> None:
        await asyncio.sleep(after)
        with suppress(SessionNotFound):
            await self._caller.until_answered(
                "delete", lambda replica: replica.delete(session_id), session_id=session_id
            )
        await self._look(session_id)

    async def _look(self, session_id: str) -> None:
        with suppress(SessionNotFound):
            await self._caller.until_answered(
                "get", lambda replica: replica.get(session_id), session_id=session_id
            )

    async def _read(self, session_id: str) -> None:
        """Asks now and then for the recording, and plays it at once."""
        tenant = self._wishes.tenant
        for _ in range(self._wishes.reads):
            await self._caller.pause(1.5)
            await self._look(session_id)
            await self._caller.until_answered(
                "list", lambda replica: replica.page(tenant, 1, ""), tenant=tenant
            )
            with suppress(SessionNotFound, NothingRecorded):
                told = await self._caller.until_answered(
                    "recording",
                    lambda replica: replica.recording(session_id),
                    session_id=session_id,
                )
                now = self._loop.time()
                call = Call(self._caller.name, "play", {"session_id": session_id}, now, now)
                call.answer = (told, self._bucket.objects.get(told.url))
                call.outcome = Outcome.OK
                self._caller.history.calls.append(call)

    async def _watch(self, session_id: str) -> None:
        """Watches to the end, on one replica after another."""
        seen, ended = 0, False
        while not ended:
            replica = self._caller.replica()
            watch = Watch(self._caller.name, UUID(session_id), seen, self._loop.time())
            self._caller.history.watches.append(watch)
            try:
                ended = await self._read_watch(watch, replica, session_id)
                seen = watch.seen
            except (Lost, *AWAY) as error:
                watch.error = error
                seen = watch.seen
                await self._caller.pause(PAUSE)
            except Exception as error:
                watch.error = error
                watch.outcome = Outcome.FAILED
                return

    async def _read_watch(self, watch: Watch, replica: Replica, session_id: str) -> bool:
        """Reads one stream; returns whether it was to its end."""
        stream = self._caller.calls.stream(
            replica.process, lambda: replica.watch(session_id, watch.after_revision)
        )
        async with aclosing(stream) as responses:
            async for told in responses:
                watch.messages.append(told)
                if told.HasField("event"):
                    watch.seen = told.event.revision
                    if self._loop.trace is not None:
                        self._loop.trace(f"{watch.who} sees revision {watch.seen}")
                if self._loop.chance(self._wishes.cuts):
                    return False
        watch.outcome = Outcome.OK
        return True

    async def _all(self, doing: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Does all at the same time. What one raises is raised when all have ended."""
        ends = await asyncio.gather(*doing, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return ends

    def _uuid(self) -> UUID:
        return UUID(int=self._loop.random.getrandbits(128), version=4)
