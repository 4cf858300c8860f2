"""Messages over a real NATS server that is restarted and wiped."""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy

from processes import halt
from steno.local.servers import LocalServers
from steno.platform.errors import Unavailable
from steno.platform.messaging import (
    PREPARE,
    Delivery,
    Messaging,
    Unprocessable,
    WorkQueue,
    connect,
    settle,
)
from steno.platform.settings import NatsSettings
from steno.v1.events_pb2 import AudioEvent, PrepareMessage
from waiting import eventually


@pytest.fixture
async def messaging(environment: dict[str, str]) -> AsyncIterator[Messaging]:
    async with connect(NatsSettings(), "test") as messaging:
        yield messaging


@pytest.fixture
def queue(messaging: Messaging) -> WorkQueue[PrepareMessage]:
    return messaging.work_queue(PREPARE, "prepare", "steno.prepare", PrepareMessage)


async def next_message(queue: WorkQueue[PrepareMessage]) -> Delivery[PrepareMessage]:
    async def take() -> Delivery[PrepareMessage] | None:
        return await queue.next(timeout=1)

    return await eventually(take)


async def succeed(message: PrepareMessage) -> None:
    pass


async def test_a_message_is_gone_once_its_work_succeeded(
    messaging: Messaging, queue: WorkQueue[PrepareMessage]
) -> None:
    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))

    delivery = await next_message(queue)
    await settle(delivery, succeed)

    assert delivery.payload.audio_id == "a"
    assert await queue.next(timeout=0.5) is None


async def test_a_message_whose_work_failed_comes_again(
    messaging: Messaging, queue: WorkQueue[PrepareMessage]
) -> None:
    async def fail(message: PrepareMessage) -> None:
        raise ConnectionError("S3 is away")

    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))
    await settle(await next_message(queue), fail)

    again = await next_message(queue)

    assert (again.payload.audio_id, again.number) == ("a", 2)


async def test_a_message_that_no_retry_can_help_is_dropped(
    messaging: Messaging, queue: WorkQueue[PrepareMessage]
) -> None:
    async def give_up(message: PrepareMessage) -> None:
        raise Unprocessable("the audio is gone")

    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))
    await settle(await next_message(queue), give_up)

    assert await queue.next(timeout=0.5) is None


async def test_a_message_that_nobody_can_read_is_passed_over_though_nats_goes_away(
    messaging: Messaging, queue: WorkQueue[PrepareMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Msg) -> None:
        raise ConnectionClosedError

    await messaging.ensure_streams()
    client = await client_of(messaging)
    await client.publish("steno.prepare", b"\xff")
    monkeypatch.setattr(Msg, "term", away)

    assert await queue.next() is None


async def test_a_repeat_with_the_same_id_is_one_message(
    messaging: Messaging, queue: WorkQueue[PrepareMessage]
) -> None:
    for _ in range(2):
        await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"), message_id="a.1")

    await settle(await next_message(queue), succeed)

    assert await queue.next(timeout=0.5) is None


async def test_subscribers_get_what_is_published_from_then_on(messaging: Messaging) -> None:
    async with messaging.subscribe("steno.events.audio.*", AudioEvent) as events:
        await messaging.publish("steno.events.audio.a", AudioEvent(audio_id="a", slice_count=3))
        event = await anext(events)

    assert (event.audio_id, event.slice_count) == ("a", 3)


async def test_what_messages_take_of_the_storage_is_told(messaging: Messaging) -> None:
    await messaging.ensure_streams()
    empty, limit = await messaging.stored_bytes()

    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a" * 1000))

    full, _ = await messaging.stored_bytes()
    assert full - empty > 1000
    assert limit == 0  # the local server sets none


async def client_of(messaging: Messaging) -> Client:
    async with messaging.asking():
        return await messaging.connected()


@pytest.mark.parametrize(
    "edit",
    [
        {"description": "by an operator"},
        {"max_msgs": 1000},
        {"subjects": ["another"]},
        {"retention": RetentionPolicy.LIMITS},
        {"no_ack": True},
        {"sealed": True},
    ],
    ids=lambda edit: "".join(edit),
)
async def test_a_stream_that_an_operator_has_changed_is_used(
    edit: dict[str, Any],
    messaging: Messaging,
    queue: WorkQueue[PrepareMessage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await messaging.ensure_streams()
    js = (await client_of(messaging)).jetstream()
    made = (await js.stream_info(PREPARE)).config
    if "retention" in edit:  # which the server does not change
        await js.delete_stream(PREPARE)
        await js.add_stream(made.evolve(**edit))
    else:
        await js.update_stream(made.evolve(**edit))

    for _ in range(2):
        await messaging.ensure_streams()
    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))

    assert (await next_message(queue)).payload.audio_id == "a"
    now = (await js.stream_info(PREPARE)).config
    assert (now.retention, now.no_ack, now.sealed) == (RetentionPolicy.WORK_QUEUE, False, False)
    assert (now.description, now.max_msgs) == (
        edit.get("description"),
        edit.get("max_msgs", -1),
    )
    assert caplog.text.count("is used as it is") == 1


async def test_a_consumer_that_an_operator_has_changed_is_used(
    messaging: Messaging, queue: WorkQueue[PrepareMessage]
) -> None:
    await messaging.ensure_streams()
    js: JetStreamContext = (await client_of(messaging)).jetstream()
    await js.add_consumer(
        PREPARE,
        ConsumerConfig(
            durable_name="prepare", filter_subject="steno.prepare", max_waiting=7, max_deliver=-1
        ),
    )

    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))

    assert (await next_message(queue)).payload.audio_id == "a"
    assert (await js.consumer_info(PREPARE, "prepare")).config.max_waiting == 7


async def test_streams_are_kept_by_as_many_servers_as_the_settings_say(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STENO_NATS_REPLICAS", "3")
    async with connect(NatsSettings(), "test") as messaging:
        with pytest.raises(Unavailable):
            await messaging.ensure_streams()

    assert "replicas > 1 not supported in non-clustered mode" in caplog.text


async def test_who_asks_for_other_replicas_uses_the_stream_that_is_there(
    messaging: Messaging, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await messaging.ensure_streams()
    monkeypatch.setenv("STENO_NATS_REPLICAS", "3")

    async with connect(NatsSettings(), "test") as other:
        await other.publish("steno.prepare", PrepareMessage(audio_id="a"))


async def test_a_connection_that_its_client_gave_up_is_made_anew(
    messaging: Messaging, queue: WorkQueue[PrepareMessage]
) -> None:
    async with messaging.subscribe("steno.events.audio.*", AudioEvent) as events:
        # As it does when the server sends an error.
        await (await messaging.connected()).close()
        assert [event async for event in events] == []

    await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))
    assert (await next_message(queue)).payload.audio_id == "a"


async def test_what_is_sent_to_a_halted_server_fails_in_time_and_succeeds_later(
    messaging: Messaging, servers: LocalServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await messaging.ensure_streams()
    monkeypatch.setattr("steno.platform.messaging.ANSWER_SECONDS", 1.0)
    pid = servers.nats.child.pid
    assert pid
    await halt(pid)
    try:
        with pytest.raises(Unavailable):
            await messaging.publish("steno.prepare", PrepareMessage(audio_id="a"))
    finally:
        os.kill(pid, signal.SIGCONT)

    async def sent() -> bool:
        try:
            return bool(await messaging.publish("steno.prepare", PrepareMessage(audio_id="b")))
        except Unavailable:
            return False

    assert await eventually(sent)


async def test_an_address_that_is_none_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_NATS_URL", "nats://host:port")

    with pytest.raises(NatsError, match="invalid connect url"):
        async with connect(NatsSettings(), "test"):
            pass
