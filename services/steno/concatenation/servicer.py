"""ConcatenationService: from protobuf to the domain and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from uuid import UUID

import grpc

from steno.concatenation import domain
from steno.concatenation.domain import Appended, Chunk
from steno.concatenation.ingest import Ingest, StreamUpdate
from steno.concatenation.messages import (
    parse_chunk,
    parse_new_session,
    parse_states,
    render_gap,
    render_recording_format,
    render_session,
)
from steno.concatenation.recording import file_format
from steno.concatenation.room import ARRIVAL_SECONDS, Arrivals
from steno.concatenation.sessions import Recorded, Sessions
from steno.concatenation.store import Store
from steno.concatenation.watch import Watchers
from steno.platform.errors import InvalidArgument, StatusTable
from steno.platform.interceptors import Context, read
from steno.platform.objects import ObjectNotFound
from steno.platform.wellknown import duration_of, timestamp_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1.concatenation_pb2_grpc import (
    ConcatenationServiceServicer,
    add_ConcatenationServiceServicer_to_server,
)

MOST_CHUNK_BYTES = 10 * 2**20
"""Longest chunk that the contract allows."""

SERVICE = pb.DESCRIPTOR.services_by_name["ConcatenationService"].full_name

STATUS_OF: StatusTable = {
    domain.SessionNotFound: grpc.StatusCode.NOT_FOUND,
    domain.SessionNotOpen: grpc.StatusCode.FAILED_PRECONDITION,
    domain.NothingRecorded: grpc.StatusCode.FAILED_PRECONDITION,
    domain.RecordingDeleted: grpc.StatusCode.FAILED_PRECONDITION,
    domain.ChunkLate: grpc.StatusCode.FAILED_PRECONDITION,
    domain.SequenceReused: grpc.StatusCode.ALREADY_EXISTS,
    domain.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    domain.TooFarAhead: grpc.StatusCode.OUT_OF_RANGE,
    domain.WriterReplaced: grpc.StatusCode.ABORTED,
    domain.OwnStreamReplaced: grpc.StatusCode.UNAVAILABLE,
    domain.SessionTooLong: grpc.StatusCode.RESOURCE_EXHAUSTED,
    # The recording has just become a file; a retry sees that.
    ObjectNotFound: grpc.StatusCode.UNAVAILABLE,
}


class ConcatenationServicer(ConcatenationServiceServicer):
    """Parses, calls, renders."""

    def __init__(
        self,
        sessions: Sessions,
        store: Store,
        ingest: Ingest,
        watchers: Watchers,
        arriving: Arrivals,
    ) -> None:
        """Takes what it calls; `arriving` is room for the requests of AppendChunk on their way."""
        self._sessions = sessions
        self._store = store
        self._ingest = ingest
        self._watchers = watchers
        self._arriving = arriving

    async def CreateSession(
        self, request: pb.CreateSessionRequest, context: Context
    ) -> pb.CreateSessionResponse:
        """See the contract."""
        session = await self._sessions.create(parse_new_session(request))
        return pb.CreateSessionResponse(session=render_session(session))

    async def StreamAudio(
        self, _: AsyncIterator[pb.StreamAudioRequest], context: Context
    ) -> AsyncIterator[pb.StreamAudioResponse]:
        """See the contract."""
        start = await parse_start(context)
        taken = await self._store.take_over(
            UUID(start.session_id),
            start.epoch,
            UUID(start.producer_id) if start.producer_id else None,
        )
        yield pb.StreamAudioResponse(
            ready=pb.StreamAudioReady(
                epoch=taken.epoch,
                next_sequence=taken.next_sequence,
                duration=duration_of(taken.format.seconds(taken.frame_count)),
            )
        )
        async with aclosing(self._ingest.stream(taken, parse_chunks(context))) as updates:
            async for update in updates:
                for response in render_update(update):
                    yield response

    # Its request is read once there is room for it: see `serve`.
    async def AppendChunk(  # type: ignore[override]
        self, _: AsyncIterator[pb.AppendChunkRequest], context: Context
    ) -> pb.AppendChunkResponse:
        """See the contract."""
        async with AsyncExitStack() as stack:
            async with self._arriving.turn(MOST_CHUNK_BYTES):
                session_id, chunk = await parse_append(context)
                await stack.enter_async_context(self._ingest.room.taken(len(chunk.content)))
            session = await self._ingest.append(session_id, chunk)
        return pb.AppendChunkResponse(
            next_sequence=session.next_sequence,
            duration=duration_of(session.format.seconds(session.frame_count)),
        )

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        """See the contract."""
        watching = self._watchers.watch(UUID(request.session_id), request.after_revision)
        async with aclosing(watching) as updates:
            async for update in updates:
                yield update

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """See the contract."""
        session = await self._sessions.get(UUID(request.session_id))
        return pb.GetSessionResponse(session=render_session(session))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """See the contract."""
        sessions, token = await self._sessions.page(
            parse_states(request), request.labels, request.page_size, request.page_token
        )
        return pb.ListSessionsResponse(
            sessions=map(render_session, sessions), next_page_token=token
        )

    async def CloseSession(
        self, request: pb.CloseSessionRequest, context: Context
    ) -> pb.CloseSessionResponse:
        """See the contract."""
        session = await self._sessions.close(UUID(request.session_id))
        return pb.CloseSessionResponse(session=render_session(session))

    async def GetRecording(
        self, request: pb.GetRecordingRequest, context: Context
    ) -> pb.GetRecordingResponse:
        """See the contract."""
        recorded = await self._sessions.recording(
            UUID(request.session_id),
            playlist=request.form != pb.RECORDING_FORM_FILE,
            file=request.form != pb.RECORDING_FORM_PLAYLIST,
        )
        return render_recorded(recorded)

    async def DeleteSession(
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> pb.DeleteSessionResponse:
        """See the contract."""
        await self._sessions.delete(UUID(request.session_id))
        return pb.DeleteSessionResponse()


def serve(servicer: ConcatenationServicer, server: grpc.aio.Server) -> None:
    """Adds the service to a server.

    A unary call's handler is called when its request is in memory. AppendChunk is served as if
    clients streamed to it, which is the same on the wire, to read its request by itself.
    """
    add_ConcatenationServiceServicer_to_server(servicer, server)
    append = grpc.stream_unary_rpc_method_handler(
        servicer.AppendChunk,
        pb.AppendChunkRequest.FromString,
        pb.AppendChunkResponse.SerializeToString,
    )
    server.add_registered_method_handlers(SERVICE, {"AppendChunk": append})


# Messages are read from the context: an iterator of them holds the last, which may have 10 MiB,
# while it waits for the next.


async def parse_append(context: Context) -> tuple[UUID, Chunk]:
    """The session and the chunk."""
    request = await read(context)
    if request is None:
        raise InvalidArgument.of("chunk", "must be set")
    return UUID(request.session_id), parse_chunk(request.chunk)


async def parse_start(context: Context) -> pb.StreamAudioStart:
    """The first message of a stream. Raises InvalidArgument if it is no start."""
    try:
        async with asyncio.timeout(ARRIVAL_SECONDS):
            request = await read(context)
    except TimeoutError:
        raise InvalidArgument.of("start", f"must come within {ARRIVAL_SECONDS:.0f} s") from None
    if request is None or not request.HasField("start"):
        raise InvalidArgument.of("start", "must be the first message of the stream")
    start: pb.StreamAudioStart = request.start
    return start


async def parse_chunks(context: Context) -> AsyncIterator[Chunk]:
    """The other messages of a stream. Raises InvalidArgument if one is no chunk."""
    while (request := await read(context)) is not None:
        if not request.HasField("chunk"):
            raise InvalidArgument.of("chunk", "must be set in all messages after the first")
        chunk = parse_chunk(request.chunk)
        del request
        yield chunk
        del chunk


def render_update(update: StreamUpdate) -> list[pb.StreamAudioResponse]:
    """Responses of a stream; some of what viewers are sent its producer knows already."""
    if isinstance(update, Appended):
        return _render_appended(update)
    response = pb.StreamAudioResponse()
    match update.WhichOneof("payload"), update.event.WhichOneof("change"):
        case "interim", _:
            response.result.CopyFrom(update.interim)
        case "speech", _:
            response.speech.CopyFrom(update.speech)
        case "event", "result_added":
            response.result.CopyFrom(update.event.result_added)
        case "event", "gap_added":
            response.gap.CopyFrom(update.event.gap_added)
        case "event", "state_changed":
            response.state_changed.CopyFrom(update.event.state_changed)
        case _:
            return []
    return [response]


def _render_appended(appended: Appended) -> list[pb.StreamAudioResponse]:
    session = appended.session
    responses = [
        pb.StreamAudioResponse(
            refusal=pb.ChunkRefusal(
                sequence=refusal.sequence,
                reason=refusal.error.reason,
                message=str(refusal.error),
            )
        )
        for refusal in appended.refusals
    ]
    ack = pb.ChunkAck(
        sequences=appended.sequences,
        next_sequence=session.next_sequence,
        duration=duration_of(session.format.seconds(session.frame_count)),
    )
    return [*responses, pb.StreamAudioResponse(ack=ack)]


def render_recorded(recorded: Recorded) -> pb.GetRecordingResponse:
    """A recording as the contract has it."""
    of = recorded.session.format
    return pb.GetRecordingResponse(
        playlist=recorded.playlist,
        url=recorded.url,
        expire_time=timestamp_of(recorded.expire_time),
        duration=duration_of(of.seconds(recorded.session.frame_count)),
        gaps=[render_gap(gap, of) for gap in recorded.gaps],
        file_format=(
            render_recording_format(file_format(recorded.session))
            if recorded.url
            else pb.RECORDING_FORMAT_UNSPECIFIED
        ),
    )
