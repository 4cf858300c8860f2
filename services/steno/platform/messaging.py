"""NATS JetStream: a wake-up and a live feed, never the truth.

The server may be restarted, and its data wiped, at any moment: streams and consumers are made
again when they are missed, and whoever sends keeps what was sent in Postgres.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    PubAck,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NoStreamResponseError, NotFoundError
from prometheus_client import Counter

from steno.platform.errors import Unavailable
from steno.platform.settings import NatsSettings
from steno.platform.telemetry import received_trace, trace_headers, tracer

log = logging.getLogger(__name__)

TASKS, PREPARE, EVENTS = "STENO_TASKS", "STENO_PREPARE", "STENO_EVENTS"

ACK_WAIT_SECONDS = 30.0
"""Silence after which a message is given to another worker."""

_STREAMS = (
    StreamConfig(
        name=TASKS,
        subjects=["steno.tasks.>"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
    ),
    StreamConfig(
        name=PREPARE,
        subjects=["steno.prepare"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
    ),
    StreamConfig(
        name=EVENTS,
        subjects=["steno.events.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=3600,  # seconds; whoever missed more asks the service
        max_bytes=2**30,
    ),
)

PUBLISHED = Counter("steno_messages_published", "Messages sent.", ["stream"])
SETTLED = Counter("steno_messages_settled", "Messages of work queues, by how they ended.", ["how"])

M = TypeVar("M", bound=Message)


class Unprocessable(Exception):
    """No retry can help this message; the reason is on record elsewhere."""


class Postponed(Exception):
    """It can't be worked on now, and nothing is wrong: the message comes again after `delay`."""

    def __init__(self, why: str, delay: float) -> None:
        """Says why, and after how many seconds to look again."""
        super().__init__(why)
        self.delay = delay


def model_token(model: str) -> str:
    """A model's name as one token of a NATS subject.

    Names of plain characters stay as they are. Others, such as paths, get their other characters
    replaced and a digest, so that two models never share a subject.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]+", model):
        return model
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]", "_", model)[-40:] + "-" + digest


def tasks_subject(model: str, priority: str) -> str:
    """Subject of a model's tasks; priority `*` means all, for consumers."""
    return f"steno.tasks.{model_token(model)}.{priority}"


class Messaging:
    """A connection to NATS that comes back by itself."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=5)

    async def publish(self, subject: str, message: Message, *, message_id: str = "") -> int:
        """Sends a message, waits until its stream has it, and answers its number there.

        Args:
            subject: one of a stream's.
            message: payload.
            message_id: the stream drops a repeat of it within two minutes.

        Raises:
            Unavailable: NATS does not answer; the message may or may not have been sent.
        """
        headers = trace_headers()
        if message_id:
            headers["Nats-Msg-Id"] = message_id
        payload = message.SerializeToString()

        async def send() -> PubAck:
            return await self._js.publish(subject, payload, timeout=2, headers=headers or None)

        try:
            try:
                ack = await send()
            except (NoStreamResponseError, TimeoutError):
                # Wiped. Where somebody listens on the subject, a missing stream shows as silence.
                await self.ensure_streams()
                ack = await send()
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable("the message server does not answer; try again") from error
        PUBLISHED.labels(ack.stream).inc()
        return ack.seq

    async def stored(self, stream: str, sequence: int, kind: type[M]) -> M | None:
        """Returns a message that its stream still has, or None.

        In a work queue that is a message nobody has acked yet. Numbers begin anew when a stream
        was wiped, so compare what comes back with what was sent.

        Raises:
            Unavailable: NATS does not answer.
        """
        try:
            message = await self._js.get_msg(stream, sequence)
            return kind.FromString(message.data or b"")
        except (NotFoundError, DecodeError):
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable("the message server does not answer; try again") from error

    async def ensure_streams(self) -> None:
        """Makes the streams that are missing."""
        for stream in _STREAMS:
            await self._js.add_stream(stream)

    async def stored_bytes(self) -> tuple[int, int]:
        """How much of the server's storage our account uses, and may use; 0 if it has no limit.

        Raises:
            Unavailable: NATS does not answer.
        """
        try:
            account = await self._js.account_info()
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable("the message server does not answer; try again") from error
        return account.storage, max(0, account.limits.max_storage)

    async def check(self) -> None:
        """Raises if NATS does not answer."""
        if not self._client.is_connected:
            raise Unavailable("the message server is not connected")

    @asynccontextmanager
    async def subscribe(self, subject: str, kind: type[M]) -> AsyncIterator[AsyncIterator[M]]:
        """Listens to what is published from now on; inside, iterate over the messages.

        Nothing is replayed, and messages are lost while the connection is: who needs all of them
        must have another way to see a hole.
        """
        subscription = await self._client.subscribe(subject)

        async def messages() -> AsyncIterator[M]:
            async for received in subscription.messages:
                with suppress(DecodeError):
                    yield kind.FromString(received.data)

        try:
            yield messages()
        finally:
            with suppress(NatsError):
                await subscription.unsubscribe()

    def work_queue(self, stream: str, durable: str, subject: str, kind: type[M]) -> WorkQueue[M]:
        """The messages of a work queue that nobody else has taken.

        Args:
            stream: TASKS or PREPARE.
            durable: name of the consumer that all who share the work use.
            subject: filter; filters of different consumers must not overlap.
            kind: type of the payload.
        """
        config = ConsumerConfig(
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            # Tries are counted in Postgres. A message that ran out of deliveries would stay in
            # the stream, invisible.
            max_deliver=-1,
            max_ack_pending=100_000,
        )
        return WorkQueue(self, self._js, stream, config, kind)


@asynccontextmanager
async def connect(settings: NatsSettings, name: str) -> AsyncIterator[Messaging]:
    """Connects to NATS; waits for it if it is away.

    Args:
        settings: where it is.
        name: of the process, as the server's monitoring shows it.
    """
    client = Client()

    async def on_error(error: Exception) -> None:
        log.warning("NATS: %s", error or repr(error), extra={"action": "nats"})

    async def on_disconnect() -> None:
        if not client.is_closed:  # by us
            log.warning("NATS is away", extra={"action": "nats"})

    async def on_reconnect() -> None:
        log.info("NATS is back", extra={"action": "nats"})

    await client.connect(
        settings.nats_url.get_secret_value(),
        name=name,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.5,  # type: ignore[arg-type]  # it sleeps so long
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
    )
    try:
        yield Messaging(client)
    finally:
        with suppress(NatsError, OSError, TimeoutError):
            await client.close()


@dataclass(frozen=True)
class Delivery(Generic[M]):
    """A message that is ours until it is settled, or until it was silent for ACK_WAIT_SECONDS."""

    payload: M
    raw: Msg

    @property
    def number(self) -> int:
        """How often it was delivered, from 1."""
        return self.raw.metadata.num_delivered


class WorkQueue(Generic[M]):
    """Takes messages one at a time, when there is room to start them."""

    def __init__(
        self,
        messaging: Messaging,
        js: JetStreamContext,
        stream: str,
        config: ConsumerConfig,
        kind: type[M],
    ) -> None:
        self._messaging = messaging
        self._js = js
        self._stream = stream
        self._config = config
        self._kind = kind
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def next(self, timeout: float = 2.0) -> Delivery[M] | None:
        """Takes the next message, or None when none came in time or NATS is away."""
        try:
            if self._subscription is None:
                self._subscription = await self._subscribe()
            (message,) = await self._subscription.fetch(1, timeout=timeout)
        except TimeoutError:  # nats.errors.TimeoutError is one
            return None
        except (NatsError, OSError) as error:
            # Restarted or wiped: make what is missing again, next time.
            log.info("no messages: %s", error or repr(error), extra={"action": "fetch"})
            await self._forget()
            await asyncio.sleep(0.5)
            return None
        try:
            return Delivery(self._kind.FromString(message.data), message)
        except DecodeError:
            log.error("a message can't be read", extra={"action": "fetch", "stream": self._stream})
            await message.term()
            return None

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        await self._messaging.ensure_streams()
        await self._js.add_consumer(self._stream, self._config)
        return await self._js.pull_subscribe_bind(
            consumer=self._config.durable_name, stream=self._stream
        )

    async def _forget(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(NatsError, OSError):
                await subscription.unsubscribe()


@asynccontextmanager
async def kept_alive(delivery: Delivery[Any]) -> AsyncIterator[None]:
    """Keeps a message from being given to others while work on it goes on."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(ACK_WAIT_SECONDS / 3)
            with suppress(NatsError, OSError):
                await delivery.raw.in_progress()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


async def settle(delivery: Delivery[M], work: Callable[[M], Awaitable[None]]) -> None:
    """Does the work of a message, and acks it last.

    Work that raises Unprocessable ends the message, and Postponed gives it back for its delay; any
    other error, and cancellation, gives it back, after a delay that grows with each delivery.
    """
    how = "ack"
    try:
        with tracer.start_as_current_span(
            delivery.raw.subject, context=received_trace(delivery.raw.headers)
        ):
            async with kept_alive(delivery):
                await work(delivery.payload)
    except Unprocessable as error:
        how = "term"
        log.warning("message dropped: %s", error, extra={"action": "settle"})
    except Postponed as later:
        how = "nak"
        log.info("postponed: %s", later, extra={"action": "settle"})
        await _answer(delivery.raw.nak, delay=later.delay)
    except asyncio.CancelledError:
        how = "nak"
        await _answer(delivery.raw.nak)
        raise
    except Exception:
        how = "nak"
        log.exception("work failed, will retry", extra={"action": "settle"})
        await _answer(delivery.raw.nak, delay=min(30.0, 0.5 * 2 ** min(delivery.number, 6)))
    else:
        await _answer(delivery.raw.ack)
    finally:
        SETTLED.labels(how).inc()
    if how == "term":
        await _answer(delivery.raw.term)


async def _answer(answer: Callable[..., Awaitable[None]], **arguments: float) -> None:
    """Answers a message; one that can't be answered comes again, and its work is idempotent."""
    with suppress(NatsError, OSError):
        await answer(**arguments)
