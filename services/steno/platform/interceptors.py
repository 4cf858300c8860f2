"""What wraps each call of a server: trace, deadline, metrics, validation, access, errors.

A handler never sees an invalid request, and never maps an error itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from prometheus_client import Counter, Gauge, Histogram

from steno.platform import tenancy
from steno.platform.access import FOR_SERVICES, Owned, Resource, rule_of
from steno.platform.admission import Inside
from steno.platform.client import deadline_in
from steno.platform.errors import (
    MalformedMessage,
    MessageTooLarge,
    ResourceExhausted,
    StatusTable,
    StenoError,
    Unavailable,
    abort,
    to_status,
)
from steno.platform.telemetry import received_trace, tracer
from steno.platform.tenancy import tenant_in
from steno.platform.validation import carries_content, validate
from steno.v1.access_pb2 import AccessRule

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[..., Any]

_FULL_RETRY_DELAY = timedelta(seconds=1)
_STOPPING = Unavailable("the server is stopping; connect again")

MOST_BYTES = 2**20
"""Of a request that carries no audio."""

_QUICK = frozenset({"steno.v1.JobService"})
"""Where each call that is no stream takes a moment, so that who is inside for long has waited.

Elsewhere a call may take its time by itself: an upload is verified, a recording is joined, a minute
is transcribed.
"""

_LABELS = ("grpc_service", "grpc_method")

# Names as go-grpc-prometheus has them, so that dashboards made for it work.
STARTED = Counter("grpc_server_started", "Calls that have begun.", _LABELS)
HANDLED = Counter("grpc_server_handled", "Calls that have ended.", (*_LABELS, "grpc_code"))
SECONDS = Histogram("grpc_server_handling_seconds", "Length of calls.", _LABELS)
RUNNING = Gauge("steno_grpc_server_running", "Calls and streams being served.", _LABELS)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each call of the services; health and reflection are left alone.

    Clients and services have room of their own, so many calls at once each: clients must not take
    the room of workers that end what they began. Beside that, a quick call is refused while those
    of its method that are inside are late.
    """

    def __init__(
        self, status_of: StatusTable, max_calls: int, resources: Mapping[str, Resource]
    ) -> None:
        """Takes the service's own statuses, its room, and the resources that its requests name."""
        self._status_of = status_of
        self._max_calls = max_calls
        self._owned = Owned(resources)
        self._calls: Tally[bool] = Tally()
        self._inside: defaultdict[str, Inside] = defaultdict(Inside)
        self._wrapped: dict[str, Any] = {}
        self._streams: dict[asyncio.Task[Any], _Stream] = {}
        self._ending = False

    async def end_streams(self, patience: float) -> None:
        """Ends all streams with UNAVAILABLE: they have no end of their own to wait for.

        Args:
            patience: longest time in seconds that this takes; then some may not know yet.
        """
        self._ending = True
        streams = dict(self._streams)
        for task, stream in streams.items():
            stream.ended = True
            if not stream.writes:
                task.cancel()
        if streams:
            await asyncio.wait(streams, timeout=patience)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Replaces the handler by one that is wrapped, the same for all calls of a method."""
        wrapped = self._wrapped.get(details.method)
        if wrapped is not None:
            return wrapped
        handler: Any = await continuation(details)
        if handler is None or not details.method.startswith("/steno."):
            return handler
        streams = handler.response_streaming or handler.request_streaming
        name = details.method.strip("/").replace("/", ".")
        method = descriptor_pool.Default().FindMethodByName(name)
        around = partial(self._around, details.method, rule_of(method), streams)
        parse = _parser(method, handler.request_deserializer)
        return self._wrapped.setdefault(details.method, _rebuilt(handler, around, parse))

    @asynccontextmanager
    async def _around(
        self, name: str, rule: AccessRule, streams: bool, context: Context
    ) -> AsyncIterator[_Stream]:
        """What is done before and after a call of the method `/package.Service/Method`."""
        _, *labels = name.split("/")
        parent, tenant = _received(context)
        internal = rule.scope in FOR_SERVICES
        quick = labels[0] in _QUICK and not streams
        STARTED.labels(*labels).inc()
        RUNNING.labels(*labels).inc()
        began = time.perf_counter()
        code = grpc.StatusCode.OK
        call = asyncio.current_task()
        assert call is not None
        stream = _Stream()
        self._calls[internal] += 1
        if streams:
            self._streams[call] = stream
        with tracer.start_as_current_span(
            name.strip("/"),
            context=parent,
            kind=trace.SpanKind.SERVER,
            record_exception=False,
        ) as span:
            try:
                with (
                    deadline_in(context.time_remaining()),
                    tenant_in(tenant),
                    self._looking_at(rule),
                    self._room(name, internal, quick, context),
                ):
                    yield stream
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                if not (self._ending and call in self._streams):
                    raise
                await abort(context, to_status(_STOPPING, {}))
            except grpc.aio.AbortError:
                code = _code_of(context)
                raise
            except Exception as error:
                status = to_status(error, self._status_of)
                code = _CODES[status.code]
                if code is grpc.StatusCode.INTERNAL:
                    log.exception("a handler failed", extra={"action": name})
                    span.record_exception(error)
                elif code is grpc.StatusCode.UNAVAILABLE:
                    log.warning("a call failed: %s", error, extra={"action": name})
                await abort(context, status)
            finally:
                HANDLED.labels(*labels, code.name).inc()
                SECONDS.labels(*labels).observe(time.perf_counter() - began)
                RUNNING.labels(*labels).dec()
                self._calls[internal] -= 1
                self._streams.pop(call, None)

    @contextmanager
    def _looking_at(self, rule: AccessRule) -> Iterator[None]:
        """Inside, requests are held against the rule."""
        if not rule.resource:
            yield
            return
        token = _look.set(partial(self._owned.check, rule.resource))
        try:
            yield
        finally:
            _look.reset(token)

    def _room(
        self, name: str, internal: bool, quick: bool, context: Context
    ) -> AbstractContextManager[None]:
        """What a call that was counted is served in. Raises ResourceExhausted if it must not be."""
        if self._calls[internal] > self._max_calls:
            raise _full("too many calls at once; try again")
        if not quick:
            return nullcontext()
        now = time.monotonic()
        if self._inside[name].is_behind(now):
            raise _full("more calls come than can be done; try again")
        return self._inside[name].call(now, context.time_remaining())


def _full(message: str) -> ResourceExhausted:
    return ResourceExhausted(message, _FULL_RETRY_DELAY, "TOO_MANY_CALLS")


def _received(context: Context) -> tuple[TraceContext, str]:
    """The caller's trace and tenant."""
    headers = {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
    return received_trace(headers), headers.get(tenancy.HEADER, tenancy.DEFAULT)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _code_of(context: Context) -> grpc.StatusCode:
    code = context.code()
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(code, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True)
class _Refused:
    """Stands for a request that could not be parsed, or was not."""

    error: StenoError


def _parser(method: MethodDescriptor, parse: Callable[[bytes], Message]) -> Callable[[bytes], Any]:
    """Parses what a method may be sent: parsed, a message takes a hundred times its bytes."""
    has_content = carries_content(method.input_type)

    # What this raised, gRPC would tell the caller as its own trouble: INTERNAL, or UNKNOWN.
    def parsed(data: bytes) -> Any:
        if len(data) > MOST_BYTES and not has_content:
            return _Refused(MessageTooLarge(len(data), MOST_BYTES))
        try:
            return parse(data)
        except DecodeError:
            return _Refused(MalformedMessage(method.full_name))

    return parsed


_look: ContextVar[Callable[[Message], Awaitable[None]] | None] = ContextVar("look", default=None)
"""Raises if the call being served must not be about what its request names, where it does so."""


async def _check(request: Message | _Refused) -> None:
    if isinstance(request, _Refused):
        raise request.error
    validate(request)
    look = _look.get()
    if look is not None:
        await look(request)


async def read(context: Context) -> Any:
    """The next request of a stream, validated; None when the client has sent all.

    For handlers that must not hold the last one, as an iterator does, while they wait for it.
    """
    request = await context.read()
    if request is grpc.aio.EOF:
        return None
    await _check(request)
    return request


def _rebuilt(
    handler: Any,
    around: Callable[[Context], AbstractAsyncContextManager[_Stream]],
    parse: Callable[[bytes], Any],
) -> Any:
    """The same method, its behaviour inside `around`, its requests validated."""

    async def unary(request: Message, context: Context) -> Any:
        async with around(context):
            await _check(request)
            return await handler.unary_unary(request, context)

    # Streams are written, not yielded: a generator whose client has gone is left to the garbage
    # collector, which ends it later and in another context.
    async def server_stream(request: Message, context: Context) -> None:
        async with around(context) as stream:
            await _check(request)
            async with aclosing(handler.unary_stream(request, context)) as responses:
                async for response in responses:
                    await stream.send(context, response)

    async def client_stream(requests: AsyncIterator[Message], context: Context) -> Any:
        async with around(context):
            return await handler.stream_unary(_validated(requests), context)

    async def both_stream(requests: AsyncIterator[Message], context: Context) -> None:
        answers = handler.stream_stream(_validated(requests), context)
        async with around(context) as stream, aclosing(answers) as responses:
            async for response in responses:
                await stream.send(context, response)

    if handler.unary_unary:
        make, behaviour = grpc.unary_unary_rpc_method_handler, unary
    elif handler.unary_stream:
        make, behaviour = grpc.unary_stream_rpc_method_handler, server_stream
    elif handler.stream_unary:
        make, behaviour = grpc.stream_unary_rpc_method_handler, client_stream  # type: ignore[assignment]
    else:
        make, behaviour = grpc.stream_stream_rpc_method_handler, both_stream  # type: ignore[assignment]

    def serialize(response: Message | bytes) -> bytes:
        """A handler may give what it has encoded once for many calls."""
        if isinstance(response, bytes):
            return response
        return handler.response_serializer(response)  # type: ignore[no-any-return]

    return make(behaviour, parse, serialize)


@dataclass(slots=True)
class _Stream:
    """A stream being served.

    A call can't be ended while a message is on its way: who ends a stream that writes leaves it
    to end itself behind the message.
    """

    writes: bool = False
    ended: bool = False

    async def send(self, context: Context, response: Message | bytes) -> None:
        """Writes a message. Raises CancelledError when the stream is to end, or the client gone."""
        self.writes = True
        try:
            await context.write(response)
        except grpc.aio.InternalError:
            # The client has gone, which the call has not been told yet.
            raise asyncio.CancelledError from None
        finally:
            self.writes = False
        if self.ended:
            raise asyncio.CancelledError


async def _validated(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        await _check(request)
        yield request
