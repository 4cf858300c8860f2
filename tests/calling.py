"""Calls as data: what is sent, to whom, for how long; and how each ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from contract import SERVICES, method, request_type
from steno.platform.errors import CONNECTION_BROKE, Failure, read_failure

if TYPE_CHECKING:
    from all_services import Things

PATIENCE_SECONDS = 120.0
"""After so long without an end a call hangs, on however busy a machine."""

TEN_YEARS = 10 * 365 * 24 * 3600.0


@dataclass(frozen=True)
class Thing:
    """Stands for the id of a thing, which is made when the call is."""

    kind: str
    number: int


class Ending(StrEnum):
    """What a caller does when all is sent."""

    WAIT = "waits for the answer"
    HALF = "cancels with all sent and the stream not ended"
    CANCEL = "cancels at once"


Fields = Mapping[str, Any]
"""What a message holds, by the names of its fields; a `Thing` in the place of its id."""


@dataclass(frozen=True)
class Call:
    """A call of an RPC.

    Attributes:
        method: such as `JobService.GetJob`.
        messages: what is sent, of a stream in order; bytes are sent as they are.
        metadata: what goes with it.
        deadline: seconds that it may take.
        ending: what the caller does then.
    """

    method: str
    messages: tuple[Fields | bytes, ...] = ({},)
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    deadline: float | None = None
    ending: Ending = Ending.WAIT

    async def make(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        things: Things,
        silence: float = PATIENCE_SECONDS,
    ) -> Failure | None:
        """Makes the call; returns how it failed, or None.

        Where grpc.aio lost the answer, since a message was on its way when it came, the call is
        made again, as callers do.

        Args:
            channels: to the services, by their names.
            things: what the call is about.
            silence: seconds without an answer after which a stream is left: some have no end.

        Raises:
            TimeoutError: it hangs.
        """
        descriptor = method(self.method)
        messages = [
            each if isinstance(each, bytes) else await _message(descriptor, each, things)
            for each in self.messages
        ]
        channel = channels[SERVICES[descriptor.containing_service.full_name]]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await self._run(descriptor, channel, messages, silence)
                except grpc.aio.AioRpcError as error:
                    failure = read_failure(error)
                    if failure.message != CONNECTION_BROKE:
                        return failure
                else:
                    return None

    async def _run(
        self,
        descriptor: MethodDescriptor,
        channel: grpc.aio.Channel,
        messages: Sequence[Message | bytes],
        silence: float,
    ) -> None:
        stub = stub_of(channel, descriptor)
        options: dict[str, Any] = {"metadata": self.metadata, "timeout": self.deadline}
        if not descriptor.client_streaming:
            call = stub(messages[0], **options)
        elif self.ending is Ending.HALF:
            call = stub(**options)
            with suppress(asyncio.InvalidStateError):  # it has ended meanwhile, and tells why
                for message in messages:
                    await call.write(message)
        else:
            call = stub(_stream(messages), **options)
        if self.ending is not Ending.WAIT:
            await asyncio.sleep(0)
            call.cancel()
        try:
            if descriptor.server_streaming:
                await _look(call, silence)
            else:
                await call
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
        finally:
            call.cancel()


LOOKED_AT = 3
"""Answers of a stream that are looked at: some have no end."""


async def _look(call: Any, silence: float) -> None:
    for _ in range(LOOKED_AT):
        try:
            async with asyncio.timeout(silence):
                if await call.read() is grpc.aio.EOF:
                    break
        except TimeoutError:
            return
    else:
        return
    await call.code()


async def _stream(messages: Sequence[Message | bytes]) -> AsyncIterator[Message | bytes]:
    for message in messages:
        yield message


def stub_of(channel: grpc.aio.Channel, descriptor: MethodDescriptor) -> Any:
    """Calls an RPC with messages, or with bytes that may be none."""
    kind = "{}_{}".format(
        "stream" if descriptor.client_streaming else "unary",
        "stream" if descriptor.server_streaming else "unary",
    )
    return getattr(channel, kind)(
        f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        request_serializer=_serialized,
        response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
    )


def _serialized(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


async def _message(descriptor: MethodDescriptor, fields: Fields, things: Things) -> Message:
    return request_type(descriptor)(**await _with_ids(fields, things))


async def _with_ids(value: Any, things: Things) -> Any:
    if isinstance(value, Thing):
        return await things.id_of(value.kind, value.number)
    if isinstance(value, Mapping):
        return {key: await _with_ids(each, things) for key, each in value.items()}
    if isinstance(value, list):
        return [await _with_ids(each, things) for each in value]
    return value
