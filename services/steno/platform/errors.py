"""Errors that any service may raise, and the one way an error becomes a gRPC status.

    StenoError
    ├── InvalidArgument    a field is wrong; names it
    ├── MessageTooLarge    a request that carries no audio has too many bytes
    ├── MalformedMessage   a request is no message, or has text that is none
    ├── ResourceExhausted  too much at the moment; says when to try again
    └── Unavailable        something behind the service is away; a retry will help

A service's own errors are plain exceptions in its `domain.py` with a `reason`, and optionally
`metadata`; the service maps them to statuses in one table, `STATUS_OF`, in its `servicer.py`.
Every error leaves with google.rpc.ErrorInfo, so that a program need not read sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

DOMAIN = "steno.dev"

StatusTable = Mapping[type[Exception], grpc.StatusCode]


class StenoError(Exception):
    """Base of the errors that the platform itself maps."""

    reason = "UNKNOWN"


@dataclass(frozen=True)
class Violation:
    """One wrong field.

    Attributes:
        field: path from the request, such as `config.language_code`.
        description: what was expected.
    """

    field: str
    description: str


MOST_VIOLATIONS = 20
"""Fields that an error names."""

_MOST_BYTES = 1200
"""Of all that an error says of fields.

gRPC may refuse an answer whose metadata is over 8 KiB, and the sender would never learn what is
wrong. A byte can become six: three in the message, which is percent-encoded, and three in the
details, where it comes twice, in Base64.
"""

_MOST_FIELD_BYTES = 200
_MOST_DESCRIPTION_BYTES = 800


def shortened(text: str, most_bytes: int) -> str:
    """The beginning of a text that is longer than so many bytes of UTF-8, and an ellipsis."""
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    return encoded[:most_bytes].decode(errors="ignore") + "…"


class InvalidArgument(StenoError):
    """The request is wrong, and which fields are: the first of them, if there are many.

    What senders have made long, such as the key of a map, is cut: an answer has little room.
    """

    reason = "INVALID_FIELDS"

    def __init__(self, violations: Sequence[Violation], reason: str | None = None) -> None:
        self.violations = tuple(_told(violations))
        sentences = [f"{v.field}: {v.description}" for v in self.violations]
        if len(violations) > len(self.violations):
            sentences.append("and more")
        super().__init__("; ".join(sentences))
        self.reason = reason or self.reason

    @classmethod
    def of(cls, field: str, description: str) -> InvalidArgument:
        """The error for a single field."""
        return cls([Violation(field, description)])


class MessageTooLarge(StenoError):
    """A request carries no audio, and has more bytes than such a request may have."""

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"the request has {size} bytes, at most {most} are allowed")


class MalformedMessage(StenoError):
    """The bytes of a request are no message of its type, or its text is not in UTF-8."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self, method: str) -> None:
        super().__init__(f"the request is no message that {method} takes, or not all text is UTF-8")


def _told(violations: Sequence[Violation]) -> Iterator[Violation]:
    """The first, each cut to its room, until the room of all is taken."""
    room = _MOST_BYTES
    for violation in violations[:MOST_VIOLATIONS]:
        field = shortened(violation.field, _MOST_FIELD_BYTES)
        description = shortened(violation.description, _MOST_DESCRIPTION_BYTES)
        room -= len(field.encode()) + len(description.encode())
        if room < 0:
            return
        yield Violation(field, description)


class ResourceExhausted(StenoError):
    """A limit is reached; accepted work is not touched."""

    reason = "LIMIT_REACHED"

    def __init__(self, message: str, retry_delay: timedelta, reason: str | None = None) -> None:
        super().__init__(message)
        self.retry_delay = retry_delay
        self.reason = reason or self.reason


class Unavailable(StenoError):
    """Something behind the service does not answer; nothing was changed, or a retry is safe."""

    reason = "DEPENDENCY_UNAVAILABLE"


AWAY_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,  # by the server: a call that we cancel is no AioRpcError
    }
)
"""What a call ends with whose server was not reached, or could not serve it just now."""

AWAY_MESSAGES: dict[type[Exception], str] = {}
"""Errors of libraries which mean that something behind the service is away, and what callers are
told: what a library says of its trouble is for the log. Whoever uses a library enters its errors.
"""

STATUS_OF: StatusTable = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    MessageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    MalformedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}


def to_status(error: Exception, table: StatusTable) -> Status:
    """Renders an error for the caller. An error in no table is INTERNAL, with a fixed text.

    Args:
        error: what was raised.
        table: the service's own statuses, beside those of the platform.
    """
    error = next(
        (Unavailable(AWAY_MESSAGES[k]) for k in type(error).__mro__ if k in AWAY_MESSAGES), error
    )
    statuses = {**STATUS_OF, **table}
    code = next((statuses[kind] for kind in type(error).__mro__ if kind in statuses), None)
    if code is None:
        if isinstance(error, grpc.aio.AioRpcError):
            return _passed_on(error)
        return _internal()
    details: list[Message] = [
        ErrorInfo(
            reason=getattr(error, "reason", "UNKNOWN"),
            domain=DOMAIN,
            metadata={k: str(v) for k, v in getattr(error, "metadata", {}).items()},
        )
    ]
    if isinstance(error, InvalidArgument):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations
                ]
            )
        )
    if isinstance(error, ResourceExhausted):
        delay = Duration()
        delay.FromTimedelta(error.retry_delay)
        details.append(RetryInfo(retry_delay=delay))
    return _status(code, str(error), *details)


def _passed_on(error: grpc.aio.AioRpcError) -> Status:
    """The failure of a call that this service made in turn.

    What the other service said of the caller's request is the caller's business; the rest is that
    it is away.
    """
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _status(
            grpc.StatusCode.UNAVAILABLE,
            "a service behind this one does not answer; try again",
            ErrorInfo(reason=Unavailable.reason, domain=DOMAIN),
        )
    received = rpc_status.from_call(error)
    if received is not None and received.code != grpc.StatusCode.INTERNAL.value[0]:
        return received
    return _internal()


def _internal() -> Status:
    return _status(
        grpc.StatusCode.INTERNAL,
        "internal error; the server's log has the details",
        ErrorInfo(reason="INTERNAL", domain=DOMAIN),
    )


def _status(code: grpc.StatusCode, message: str, *details: Message) -> Status:
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    return Status(code=code.value[0], message=message, details=packed)


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: Status) -> NoReturn:
    """Ends a call with a status and its details."""
    rendered = rpc_status.to_status(status)
    await context.abort(rendered.code, rendered.details, rendered.trailing_metadata)
    raise AssertionError("abort returned")  # it never does; this tells the type checker


@dataclass(frozen=True)
class Failure:
    """What a caller can read from a failed call.

    Attributes:
        code: the gRPC status.
        message: one sentence for people.
        reason: ErrorInfo's reason, or "" when the server sent none.
        metadata: ErrorInfo's metadata.
        violations: BadRequest's violations.
        retry_delay: RetryInfo's delay, or None.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: Mapping[str, str] | None = None
    violations: tuple[Violation, ...] = ()
    retry_delay: timedelta | None = None


_BROKEN = (grpc.StatusCode.INTERNAL, "Internal error from Core")
"""What grpc.aio itself says when a call ends while a message is on its way, whatever ended it.

Mostly a connection that broke; where it was the server, the next try is told why. It is a race:
mostly the true status comes. No server of ours sends this text.
"""

CONNECTION_BROKE = "the connection broke"


def read_failure(error: grpc.aio.AioRpcError) -> Failure:
    """Reads the details of a failed call. A connection that broke is always UNAVAILABLE."""
    fields: dict[str, Any] = {}
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            fields |= {"reason": info.reason, "metadata": dict(info.metadata)}
        elif detail.Unpack(bad):
            fields["violations"] = tuple(
                Violation(v.field, v.description) for v in bad.field_violations
            )
        elif detail.Unpack(retry):
            fields["retry_delay"] = retry.retry_delay.ToTimedelta()
    code, message = error.code(), error.details() or ""
    if (code, message) == _BROKEN:
        code, message = grpc.StatusCode.UNAVAILABLE, CONNECTION_BROKE
    return Failure(code, message, **fields)
