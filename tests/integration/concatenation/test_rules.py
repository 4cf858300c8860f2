"""Writers, limits, events: what a session promises beside its recording."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable
from contextlib import suppress

import grpc
import psycopg
import pytest

from live_sessions import Producer, Service, failure_of
from steno.platform.messaging import connect
from steno.platform.objects import ObjectStore
from steno.platform.settings import NatsSettings
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1.events_pb2 import SessionEventMessage
from waiting import eventually

from .conftest import StartService

SECOND = bytes(32_000)

Call = grpc.aio.StreamStreamCall[pb.StreamAudioRequest, pb.StreamAudioResponse]


async def started(
    service: Service, session_id: str, **start: object
) -> tuple[Call, pb.StreamAudioReady]:
    call = service.stub.StreamAudio()
    message = pb.StreamAudioStart(session_id=session_id, **start)  # type: ignore[arg-type]
    await call.write(pb.StreamAudioRequest(start=message))
    return call, (await read(call)).ready


async def read(call: Call) -> pb.StreamAudioResponse:
    response = await call.read()
    assert isinstance(response, pb.StreamAudioResponse)
    return response


async def send(call: Call, sequence: int, content: bytes = SECOND) -> None:
    await call.write(pb.StreamAudioRequest(chunk=pb.Chunk(sequence=sequence, content=content)))


async def acked(call: Call) -> pb.ChunkAck:
    while True:
        response = await read(call)
        if response.HasField("ack"):
            return response.ack


async def read_all(call: Call) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def end_of(call: Call) -> grpc.StatusCode:
    try:
        await read_all(call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_the_server_says_which_chunk_it_wants_next(service: Service) -> None:
    session = await service.open()
    for sequence in (0, 1, 3):
        await service.append(session.session_id, sequence, SECOND)

    seen = await service.get(session.session_id)
    call, ready = await started(service, session.session_id)
    await send(call, 2)
    ack = await acked(call)

    assert (seen.next_sequence, seen.free_sequence) == (2, 4)
    assert (ready.epoch, ready.next_sequence, ready.duration.seconds) == (1, 2, 2)
    assert (list(ack.sequences), ack.next_sequence, ack.duration.seconds) == ([2], 4, 4)
    await call.done_writing()
    assert await end_of(call) is grpc.StatusCode.OK


async def test_a_new_stream_takes_over_and_the_old_one_is_told_and_changes_nothing(
    start_service: StartService,
) -> None:
    one, other = await start_service(), await start_service()
    session = await one.open()
    old, _ = await started(one, session.session_id)
    await send(old, 0)
    await acked(old)

    new, ready = await started(other, session.session_id)
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # it may have been told already
        await send(old, 1)
    told = await end_of(old)
    await send(new, 2)
    await acked(new)

    assert ready.epoch == 2
    assert told is grpc.StatusCode.ABORTED
    seen = await one.get(session.session_id)
    assert (seen.epoch, seen.next_sequence) == (2, 1)
    stale = one.stub.StreamAudio()
    start = pb.StreamAudioStart(session_id=session.session_id, epoch=1)
    await stale.write(pb.StreamAudioRequest(start=start))
    assert (await failure_of(stale.read())).reason == "WRITER_REPLACED"


async def test_a_stream_that_its_producer_gave_up_and_that_comes_in_late_ends_no_producer(
    start_service: StartService,
) -> None:
    one, other, me = await start_service(), await start_service(), str(uuid.uuid4())
    session = await one.open()
    new, ready = await started(one, session.session_id, producer_id=me)
    await started(other, session.session_id, producer_id=me)  # begun before, slow on its way

    failure = await failure_of(read_all(new))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "OWN_STREAM_REPLACED",
    )
    again, _ = await started(one, session.session_id, epoch=ready.epoch, producer_id=me)
    await send(again, 0)
    await acked(again)


async def test_a_producer_that_did_not_hear_its_own_epoch_may_come_back(service: Service) -> None:
    session, me = await service.open(), str(uuid.uuid4())
    first, _ = await started(service, session.session_id, producer_id=me)
    second, _ = await started(service, session.session_id, producer_id=me)  # its answer is lost
    second.cancel()
    first.cancel()

    _, ready = await started(service, session.session_id, producer_id=me, epoch=1)

    assert ready.epoch == 3


async def test_a_chunk_that_is_sent_again_is_answered_as_before_and_other_bytes_are_refused(
    service: Service,
) -> None:
    session = await service.open()
    await service.append(session.session_id, 0, SECOND)

    again = await service.append(session.session_id, 0, SECOND)
    failure = await failure_of(service.append(session.session_id, 0, SECOND[::2]))
    await service.close(session.session_id)
    after_the_end = await service.append(session.session_id, 0, SECOND)

    assert (again, after_the_end) == (1, 1)
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SEQUENCE_REUSED")
    ended = await failure_of(service.append(session.session_id, 1, SECOND))
    assert (ended.code, ended.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_OPEN")


async def test_chunks_may_be_10000_ahead_and_no_further(service: Service) -> None:
    session = await service.open()

    assert await service.append(session.session_id, 9999, SECOND) == 0
    failure = await failure_of(service.append(session.session_id, 10_000, SECOND))

    assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOO_FAR_AHEAD")


async def test_wrong_chunks_are_refused_with_the_field_that_is_wrong(service: Service) -> None:
    session = await service.open(channel_count=2)

    def append(chunk: pb.Chunk) -> Awaitable[object]:
        request = pb.AppendChunkRequest(session_id=session.session_id, chunk=chunk)
        return service.stub.AppendChunk(request)

    half = await failure_of(append(pb.Chunk(content=b"abc")))
    other = await failure_of(append(pb.Chunk(content=b"abcd", sha256="0" * 64)))
    digest = hashlib.sha256(b"abcd").hexdigest()
    await append(pb.Chunk(content=b"abcd", sha256=digest))

    assert half.code is other.code is grpc.StatusCode.INVALID_ARGUMENT
    assert half.violations[0].field == "chunk.content"
    assert other.violations[0].field == "chunk.sha256"


LONGEST = 10 * 2**20
"""Bytes of a chunk."""


async def test_a_chunk_of_more_than_10_mib_is_refused_and_the_session_goes_on(
    service: Service, objects: ObjectStore
) -> None:
    session = await service.open()

    posted = await failure_of(service.append(session.session_id, 0, bytes(LONGEST + 2)))
    call, _ = await started(service, session.session_id)
    await send(call, 0, bytes(LONGEST + 2))
    streamed = await failure_of(read_all(call))
    # So long a message is not even read.
    unread = await failure_of(service.append(session.session_id, 0, bytes(2 * LONGEST)))
    left = await objects.list_prefix(f"sessions/{session.session_id}/")
    again, ready = await started(service, session.session_id)
    await send(again, 0, bytes(LONGEST))
    ack = await acked(again)

    for failure in (posted, streamed):
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [each.field for each in failure.violations] == ["chunk.content"]
        assert "at most 10485760" in failure.violations[0].description
    assert unread.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in unread.message
    assert left == []
    assert ready.next_sequence == 0
    assert (ack.next_sequence, ack.duration.ToMilliseconds()) == (1, LONGEST // 32)


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("config.sample_rate_hertz", {"sample_rate_hertz": 0}),
        ("config.chunk_form", {"chunk_form": pb.CHUNK_FORM_FILES}),
        ("config.recording_format", {"recording_format": pb.RECORDING_FORMAT_RF64}),
        ("config.gap_timeout", {"gap_timeout": duration_of(3601)}),
        ("config.idle_timeout", {"idle_timeout": duration_of(0)}),
        (
            "config.channel_count",
            {"encoding": pb.AUDIO_ENCODING_CONTAINER, "channel_count": 2},
        ),
    ],
)
async def test_a_session_that_makes_no_sense_is_refused(
    service: Service, field: str, config: dict[str, object]
) -> None:
    failure = await failure_of(service.open(**config))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in failure.violations] == [field]


async def test_an_idle_session_expires_and_what_came_is_kept(
    service: Service, environment: dict[str, str]
) -> None:
    session = await service.open(idle_timeout=duration_of(120))
    await service.append(session.session_id, 0, SECOND)
    assert (await service.get(session.session_id)).state == pb.SESSION_STATE_OPEN

    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        db.execute(
            "UPDATE concatenation.sessions SET chunk_time = chunk_time - interval '2 minutes'"
        )
    events = await service.events(session.session_id)

    states = [event.state_changed for event in events if event.HasField("state_changed")]
    assert states[-1].state == pb.SESSION_STATE_EXPIRED
    assert states[-1].audio_id
    assert [event.revision for event in events] == [*range(1, len(events) + 1)]


async def test_a_recording_has_a_longest_duration(service: Service) -> None:
    session = await service.open(max_duration=duration_of(2))
    for sequence in (0, 1):
        await service.append(session.session_id, sequence, SECOND)

    failure = await failure_of(service.append(session.session_id, 2, SECOND))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason == "SESSION_TOO_LONG"


async def test_what_waits_for_a_missing_chunk_counts_as_recorded(service: Service) -> None:
    session = await service.open(max_duration=duration_of(2))
    for sequence in (1, 2):
        await service.append(session.session_id, sequence, SECOND)

    failure = await failure_of(service.append(session.session_id, 3, SECOND))

    assert failure.reason == "SESSION_TOO_LONG"


async def test_too_many_sessions_and_viewers_are_turned_away(start_service: StartService) -> None:
    service = await start_service(STENO_SESSION_MAX_OPEN="1", STENO_SESSION_MAX_VIEWERS="1")
    session = await service.open()
    request = pb.WatchSessionRequest(session_id=session.session_id)
    viewer = service.stub.WatchSession(request)
    await viewer.read()

    sessions = await failure_of(service.open())
    viewers = await failure_of(service.stub.WatchSession(request).read())

    assert sessions.code is viewers.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (sessions.reason, viewers.reason) == ("TOO_MANY_SESSIONS", "TOO_MANY_VIEWERS")
    assert sessions.retry_delay
    assert viewers.retry_delay


async def test_each_tenant_has_its_own_sessions_and_its_own_limit(
    start_service: StartService,
) -> None:
    service = await start_service(STENO_SESSION_TENANT_MAX_OPEN="1")
    tenant = (("x-steno-tenant", f"tenant-{uuid.uuid4().hex[:8]}"),)
    await service.open()
    config = pb.SessionConfig(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16_000)
    request = pb.CreateSessionRequest(config=config)

    made = (await service.stub.CreateSession(request, metadata=tenant)).session
    listed = await service.stub.ListSessions(pb.ListSessionsRequest(), metadata=tenant)
    refused = await failure_of(service.stub.CreateSession(request, metadata=tenant))

    assert made.tenant == tenant[0][1]
    assert [session.session_id for session in listed.sessions] == [made.session_id]
    assert refused.reason == "TOO_MANY_SESSIONS"


async def test_creating_is_idempotent(service: Service) -> None:
    config = pb.SessionConfig(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=8000)
    request = pb.CreateSessionRequest(config=config, request_id=str(uuid.uuid4()))

    first = await service.stub.CreateSession(request)
    again = await service.stub.CreateSession(request)
    request.display_name = "another"
    failure = await failure_of(service.stub.CreateSession(request))

    assert first.session == again.session
    assert failure.reason == "REQUEST_ID_REUSED"


async def test_sessions_are_listed_page_by_page_newest_first(service: Service) -> None:
    opened = [(await service.open()).session_id for _ in range(5)]
    await service.close(opened[0])
    listed, token = [], ""
    while True:
        request = pb.ListSessionsRequest(page_size=2, page_token=token)
        page = await service.stub.ListSessions(request)
        listed += [session.session_id for session in page.sessions]
        if not (token := page.next_page_token):
            break
    only_open = await service.stub.ListSessions(
        pb.ListSessionsRequest(states=[pb.SESSION_STATE_OPEN])
    )

    assert listed == opened[::-1]
    assert len(only_open.sessions) == 4


async def test_a_viewer_who_comes_back_sees_each_revision_once(service: Service) -> None:
    session = await service.open(gap_timeout=duration_of(0))
    producer = Producer([service.stub], session.session_id)
    await producer.send([(0, SECOND), (2, SECOND)])

    async def has_gap() -> bool:
        return (await service.get(session.session_id)).next_sequence == 3

    await eventually(has_gap)
    watching = asyncio.create_task(service.events(session.session_id))
    await service.close(session.session_id)
    watched = await watching
    middle = watched[2].revision
    resumed = await service.events(session.session_id, middle)

    assert [event.revision for event in watched] == [*range(1, len(watched) + 1)]
    assert resumed == watched[middle:]
    beyond = service.events(session.session_id, watched[-1].revision + 1)
    assert (await failure_of(beyond)).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_not_in_the_log_ends_no_stream(
    service: Service, environment: dict[str, str]
) -> None:
    session = await service.open()
    call, ready = await started(service, session.session_id)
    of = f"steno.events.session.{session.session_id}"

    def told(session_id: str, **told: object) -> bytes:
        message = SessionEventMessage(session_id=session_id, told=pb.WatchSessionResponse(**told))  # type: ignore[arg-type]
        return message.SerializeToString()

    async def tell() -> None:
        """Again and again, for the service may not listen yet; what it hears last is true."""
        async with connect(NatsSettings(), "test") as messaging:
            nats = await messaging.connected()
            while True:
                for revision in (3, 4, 99):
                    event = pb.SessionEvent(session_id=session.session_id, revision=revision)
                    event.writer_changed = ready.epoch + 1
                    await nats.publish(of, told(session.session_id, event=event))
                await nats.publish(of, told("none", event=pb.SessionEvent()))
                heard = pb.SpeechEvent(type=pb.SPEECH_EVENT_TYPE_BEGIN)
                await nats.publish(of, told(session.session_id, speech=heard))
                await asyncio.sleep(0.1)

    telling = asyncio.create_task(tell())
    while not (await read(call)).HasField("speech"):
        pass
    telling.cancel()
    await asyncio.wait([telling])
    await send(call, 0)

    assert (await acked(call)).next_sequence == 1
    await call.done_writing()
    assert await end_of(call) is grpc.StatusCode.OK
