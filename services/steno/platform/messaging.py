"""NATS JetStream: a wake-up and a live feed, never the truth.

The server may be away when a process starts, be restarted, and its data be wiped, at any moment:
streams and consumers are made again when they are missed, and whoever sends keeps what was sent in
Postgres.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
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
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from prometheus_client import Counter

from steno.platform.ending import ended
from steno.platform.errors import Unavailable
from steno.platform.settings import NatsSettings
from steno.platform.telemetry import received_trace, trace_headers, tracer

log = logging.getLogger(__name__)

TASKS, PREPARE, EVENTS = "STENO_TASKS", "STENO_PREPARE", "STENO_EVENTS"

ACK_WAIT_SECONDS = 30.0
"""Silence after which a message is given to another worker."""

FIRST_SECONDS = 2.0
"""A process that starts waits so long for NATS, and goes on without it then."""
ANSWER_SECONDS = 5.0
"""Longest time that anything asked of NATS takes, the wait for a connection included."""
PING_SECONDS = 10
"""A server that has left two pings unanswered for so long each is away."""
ABANDON_SECONDS = 30.0
"""A connection that has not come back by itself in this time is given up for a new one."""

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
    """A connection to NATS that comes by itself, as soon as the server is there, and comes back."""

    def __init__(self, settings: NatsSettings) -> None:
        self._address = settings.nats_url.get_secret_value()
        self._shown = (settings.nats_tls_certificate, settings.nats_tls_key)
        self._streams = [
            replace(stream, num_replicas=settings.nats_replicas) for stream in _STREAMS
        ]
        self._connected = asyncio.Event()
        self._client: Client | None = None
        self._subscriptions: set[Subscription] = set()
        self._problem = ""
        self._told: set[str] = set()

    async def stay_connected(self, name: str) -> None:
        """Connects, and connects anew where the client does not come back. Does not return.

        It gives up when the server sends an error, such as that credentials have ended; and it can
        hang in a connection whose other end has vanished.

        Raises:
            nats.errors.Error: the address is none.
        """
        while True:
            lost = asyncio.Event()
            try:
                await self._connect(name, lost)
                await lost.wait()
            except NatsError:
                self._client = None  # which has nothing to close
                raise
            except Exception:  # what answers is no NATS server, for example
                log.exception("can't connect, will try again", extra={"action": "nats"})
                await asyncio.sleep(1)
            finally:
                lost.set()
                self._connected.clear()
            await self.close()

    async def _connect(self, name: str, lost: asyncio.Event) -> None:
        """Waits until the server is there; sets the event when it has gone for good."""
        client = self._client = Client()
        patience: asyncio.TimerHandle | None = None

        async def on_disconnect() -> None:
            nonlocal patience
            if not lost.is_set():  # by us
                self._connected.clear()
                patience = asyncio.get_running_loop().call_later(ABANDON_SECONDS, lost.set)
                log.warning("NATS is away", extra={"action": "nats"})

        async def on_reconnect() -> None:
            if patience is not None:
                patience.cancel()
            if not lost.is_set():
                self._now_connected()

        async def on_closed() -> None:
            lost.set()

        await client.connect(
            self._address,
            name=name,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,  # type: ignore[arg-type]  # it sleeps so long
            connect_timeout=5,
            tls=self._tls(),
            ping_interval=PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            closed_cb=on_closed,
        )
        self._now_connected()

    def _tls(self) -> ssl.SSLContext | None:
        """TLS with a certificate to show; without one, the client knows what to do."""
        certificate, key = self._shown
        if not certificate:
            return None
        context = ssl.create_default_context()
        context.load_cert_chain(certificate, key or None)
        return context

    def _now_connected(self) -> None:
        self._problem = ""
        self._connected.set()
        log.info("NATS is there", extra={"action": "nats"})

    async def _on_error(self, error: Exception) -> None:
        problem = str(error) or repr(error)
        if problem != self._problem:  # it comes again with each try
            log.warning("NATS: %s", problem, extra={"action": "nats"})
        self._problem = problem

    async def close(self) -> None:
        """Gives the connection up. Who listens to it begins anew."""
        if self._client is None:
            return
        with suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                for subscription in list(self._subscriptions):
                    await subscription.unsubscribe()
                await self._client.close()

    async def connected(self) -> Client:
        """Waits until NATS is there."""
        await self._connected.wait()
        assert self._client is not None
        return self._client

    async def check(self) -> None:
        """Raises Unavailable if NATS is away."""
        if not self._connected.is_set():
            raise Unavailable("the message server is not connected")

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[JetStreamContext]:
        """JetStream, for what must be answered within ANSWER_SECONDS.

        Raises:
            Unavailable: NATS is away, does not answer in time, or refuses.
        """
        try:
            # The client has deadlines for answers, and none for what it sends.
            async with asyncio.timeout(ANSWER_SECONDS):
                yield (await self.connected()).jetstream(timeout=ANSWER_SECONDS)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable("the message server does not answer; try again") from error

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

        async def send(js: JetStreamContext) -> PubAck:
            return await js.publish(subject, payload, timeout=2, headers=headers or None)

        async with self.asking() as js:
            try:
                ack = await send(js)
            except (NoStreamResponseError, TimeoutError):
                # Wiped. Where somebody listens on the subject, a missing stream shows as silence.
                await self.ensure_streams()
                ack = await send(js)
        PUBLISHED.labels(ack.stream).inc()
        return ack.seq

    async def stored(self, stream: str, sequence: int, kind: type[M]) -> M | None:
        """Returns a message that its stream still has, or None.

        In a work queue that is a message nobody has acked yet. Numbers begin anew when a stream
        was wiped, so compare what comes back with what was sent.

        Raises:
            Unavailable: NATS does not answer.
        """
        async with self.asking() as js:
            try:
                message = await js.get_msg(stream, sequence)
                return kind.FromString(message.data or b"")
            except (NotFoundError, DecodeError):
                return None

    async def ensure_streams(self) -> None:
        """Makes the streams that are missing.

        Raises:
            Unavailable: NATS does not answer.
        """
        async with self.asking() as js:
            for stream in self._streams:
                try:
                    await js.add_stream(stream)
                except APIError as error:
                    await self._use_as_it_is(js, stream, error)

    async def _use_as_it_is(
        self, js: JetStreamContext, wanted: StreamConfig, error: APIError
    ) -> None:
        """Leaves a stream that an operator has changed, but for what nothing works without."""
        name = str(wanted.name)
        try:
            there = (await js.stream_info(name)).config
        except NotFoundError:
            log.error("the stream %s can't be made: %s", name, error, extra={"action": "nats"})
            raise error from None
        if name not in self._told:
            self._told.add(name)
            log.warning(
                "the stream %s is used as it is, though %s",
                *(name, _differences(there, wanted) or error),
                extra={"action": "nats"},
            )
        subjects = sorted({*(there.subjects or ()), *(wanted.subjects or ())})
        usable = there.evolve(
            subjects=subjects, retention=wanted.retention, no_ack=False, sealed=False
        )
        if (there.retention, there.sealed) != (usable.retention, usable.sealed):
            # The server changes neither. The messages that go with it are sent again.
            log.warning("the stream %s is made anew", name, extra={"action": "nats"})
            await js.delete_stream(name)
            await js.add_stream(usable)
        elif there.no_ack or sorted(there.subjects or ()) != subjects:
            log.warning("the stream %s is corrected", name, extra={"action": "nats"})
            await js.update_stream(usable)

    async def stored_bytes(self) -> tuple[int, int]:
        """How much of the server's storage our account uses, and may use; 0 if it has no limit.

        Raises:
            Unavailable: NATS does not answer.
        """
        async with self.asking() as js:
            account = await js.account_info()
        return account.storage, max(0, account.limits.max_storage)

    @asynccontextmanager
    async def subscribe(self, subject: str, kind: type[M]) -> AsyncIterator[AsyncIterator[M]]:
        """Listens to what is published from now on; inside, iterate over the messages.

        Waits for NATS if it is away. Nothing is replayed, and messages are lost while the
        connection is: who needs all of them must have another way to see a hole. The messages end
        when the connection is given up for a new one.
        """
        subscription = await (await self.connected()).subscribe(subject)
        self._subscriptions.add(subscription)

        async def messages() -> AsyncIterator[M]:
            async for received in subscription.messages:
                with suppress(DecodeError):
                    yield kind.FromString(received.data)

        try:
            yield messages()
        finally:
            self._subscriptions.remove(subscription)
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
        return WorkQueue(self, stream, config, kind)


def _differences(there: StreamConfig, wanted: StreamConfig) -> str:
    """What Steno asks of a stream and another has changed."""
    usual = StreamConfig()
    return ", ".join(
        f"{field.name} is {getattr(there, field.name)}, not {getattr(wanted, field.name)}"
        for field in fields(wanted)
        if getattr(wanted, field.name)
        not in (getattr(usual, field.name), getattr(there, field.name))
    )


@asynccontextmanager
async def connect(settings: NatsSettings, name: str) -> AsyncIterator[Messaging]:
    """Connects to NATS; where it is away, goes on without it after FIRST_SECONDS.

    Args:
        settings: where it is.
        name: of the process, as the server's monitoring shows it.

    Raises:
        nats.errors.Error: the address is none.
    """
    messaging = Messaging(settings)
    connecting = asyncio.create_task(messaging.stay_connected(name))
    first = asyncio.create_task(messaging.connected())
    try:
        await asyncio.wait(
            (connecting, first), timeout=FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if connecting.done():
            connecting.result()
        if not first.done():
            log.warning("NATS is away; going on without it", extra={"action": "nats"})
        yield messaging
    finally:
        await ended(connecting, first)
        await messaging.close()


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
        stream: str,
        config: ConsumerConfig,
        kind: type[M],
    ) -> None:
        self._messaging = messaging
        self._stream = stream
        self._config = config
        self._kind = kind
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def next(self, timeout: float = 2.0) -> Delivery[M] | None:
        """Takes the next message, or None when none came in time or NATS is away."""
        try:
            async with asyncio.timeout(timeout):
                # What is asked while it is away is asked all the same when it is back, once for
                # each time: messages for nobody.
                await self._messaging.connected()
            if self._subscription is None:
                self._subscription = await self._subscribe()
            async with asyncio.timeout(timeout + ANSWER_SECONDS):
                (message,) = await self._subscription.fetch(1, timeout=timeout)
        except TimeoutError:  # nats.errors.TimeoutError is one
            return None
        except (NatsError, OSError, Unavailable) as error:
            # Restarted or wiped: make what is missing again, next time.
            log.info("no messages: %r", error.__cause__ or error, extra={"action": "fetch"})
            await self._forget()
            await asyncio.sleep(0.5)
            return None
        try:
            return Delivery(self._kind.FromString(message.data), message)
        except DecodeError:
            log.error("a message can't be read", extra={"action": "fetch", "stream": self._stream})
            await _answer(message.term)
            return None

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        await self._messaging.ensure_streams()
        async with self._messaging.asking() as js:
            try:
                await js.add_consumer(self._stream, self._config)
            except APIError as error:
                await self._use_as_it_is(js, error)
            return await js.pull_subscribe_bind(
                consumer=self._config.durable_name, stream=self._stream
            )

    async def _use_as_it_is(self, js: JetStreamContext, error: APIError) -> None:
        """Leaves a consumer that an operator has changed, if one can work with it."""
        name, wanted = str(self._config.durable_name), self._config
        try:
            there = (await js.consumer_info(self._stream, name)).config
        except NotFoundError:
            raise error from None
        needed = ("ack_policy", "max_deliver", "filter_subject", "deliver_subject")
        if any(getattr(there, field) != getattr(wanted, field) for field in needed):
            # Messages that somebody holds come again.
            log.warning("the consumer %s is made anew: %s", name, error, extra={"action": "nats"})
            await js.delete_consumer(self._stream, name)
            await js.add_consumer(self._stream, wanted)

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
        await ended(beating)  # the client drops a cancellation that comes while it sends


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
    with suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            await answer(**arguments)
