"""Messages over a real NATS server that is restarted and wiped."""

from collections.abc import AsyncIterator

import pytest

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

    return await eventually(take)  # type: ignore[return-value]


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
