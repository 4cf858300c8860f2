"""Every RPC of every service, called as a client finds it: by reflection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from platform_client import Client
from steno.platform.errors import Failure, read_failure
from steno.v1 import (
    concatenation_pb2,
    job_pb2,
    transcription_pb2,
    upload_pb2,
    validation_pb2,
)

SERVICES = {
    "steno.v1.UploadService": "upload",
    "steno.v1.SliceService": "upload",
    "steno.v1.JobService": "job",
    "steno.v1.TaskService": "job",
    "steno.v1.TranscriptionService": "transcription",
    "steno.v1.WindowService": "transcription",
    "steno.v1.ImportService": "upload",
    "steno.v1.ConcatenationService": "concatenation",
}
NOBODY = "00000000-0000-7000-8000-000000000000"


def methods() -> list[MethodDescriptor]:
    """All RPCs of the contracts, sorted by name."""
    found = [
        method
        for file in (upload_pb2, job_pb2, transcription_pb2, concatenation_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    return sorted(found, key=lambda method: method.full_name)


def wrong_requests(kind: Any, prefix: str = "") -> Iterator[tuple[str, Message]]:
    """For each rule of a message's fields a request that breaks it, with the field's path."""
    for field in kind.DESCRIPTOR.fields:
        rules = field.GetOptions().Extensions[validation_pb2.rules]
        path = prefix + field.name
        if rules.required:
            yield path, kind()
        for value in wrong_values(field, rules):
            request = kind()
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                getattr(request, field.name).update(value)
            elif field.is_repeated:
                getattr(request, field.name).extend(value)
            else:
                setattr(request, field.name, value)
            yield path, request
        if is_plain_message(field):
            inner = message_factory.GetMessageClass(field.message_type)
            for inner_path, inner_request in wrong_requests(inner, path + "."):
                request = kind()
                if field.is_repeated:
                    getattr(request, field.name).append(inner_request)
                else:
                    getattr(request, field.name).CopyFrom(inner_request)
                yield inner_path, request


def is_plain_message(field: FieldDescriptor) -> bool:
    return (
        field.message_type is not None
        and not field.message_type.GetOptions().map_entry
        and field.message_type.full_name.startswith("steno.")
    )


def wrong_values(field: FieldDescriptor, rules: validation_pb2.FieldRules) -> Iterator[Any]:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        if rules.max_items:
            yield {f"k{i}": "" for i in range(rules.max_items + 1)}
        if rules.key_pattern:
            yield {"no key!": ""}
        if rules.max_len:
            yield {"k": "x" * (rules.max_len + 1)}
        return
    single: list[Any] = []
    if rules.uuid or rules.pattern:
        single.append("not right!\n")
    if rules.max_len and rules.max_len < 2**20:
        text = "x" * (rules.max_len + 1)
        single.append(text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text)
    if rules.HasField("gte"):
        single.append(rules.gte - 1)
    if rules.HasField("lte"):
        single.append(rules.lte + 1)
    if field.enum_type is not None:
        single.append(99)
    if field.is_repeated:
        if rules.max_items:
            sample: Any = 1 if field.enum_type is not None else "x"
            if is_plain_message(field):
                sample = message_factory.GetMessageClass(field.message_type)()
            yield [sample] * (rules.max_items + 1)
        yield from ([value] for value in single)
    else:
        yield from single


def placed(paths: list[str]) -> set[str]:
    """Paths without the places inside lists and maps."""
    return {re.sub(r"\[.*?\]", "", path) for path in paths}


def fill(request: Message) -> None:
    """Sets what must be set; ids are nobody's."""
    for field in request.DESCRIPTOR.fields:
        rules = field.GetOptions().Extensions[validation_pb2.rules]
        if not rules.required:
            continue
        if rules.uuid:
            setattr(request, field.name, NOBODY)
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(request, field.name, "x")
        elif field.type == FieldDescriptor.TYPE_BYTES:
            setattr(request, field.name, b"x")
        elif field.is_repeated:
            fill(getattr(request, field.name).add())
        elif field.message_type is not None:
            getattr(request, field.name).SetInParent()
        else:
            setattr(request, field.name, 1)


async def call(client: Client, method: MethodDescriptor, request: Message) -> Failure | None:
    """Calls an RPC and returns how it failed, or None."""
    channel = client.channels[SERVICES[method.containing_service.full_name]]
    path = f"/{method.containing_service.full_name}/{method.name}"
    response_type = message_factory.GetMessageClass(method.output_type)
    streams = (
        ("stream" if method.client_streaming else "unary")
        + "_"
        + ("stream" if method.server_streaming else "unary")
    )
    multi = getattr(channel, streams)(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response_type.FromString,
    )
    argument = iter([request]) if method.client_streaming else request
    try:
        if method.server_streaming:
            async for _ in multi(argument, timeout=20):
                break
        else:
            await multi(argument, timeout=20)
    except grpc.aio.AioRpcError as error:
        return read_failure(error)
    return None


@pytest.mark.parametrize("service", SERVICES)
def test_reflection_describes_the_service_as_the_contract_does(
    client: Client, service: str
) -> None:
    with grpc.insecure_channel(client.addresses[SERVICES[service]]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        described = descriptor_pool.DescriptorPool(database).FindServiceByName(service)
        listed = database.get_services()

    expected = {m.name for m in methods() if m.containing_service.full_name == service}
    assert {method.name for method in described.methods} == expected
    assert {service, "grpc.health.v1.Health"} <= set(listed)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
async def test_each_wrong_field_is_named(client: Client, method: MethodDescriptor) -> None:
    for path, request in wrong_requests(message_factory.GetMessageClass(method.input_type)):
        failure = await call(client, method, request)

        assert failure is not None, f"{path} was accepted: {request}"
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, (path, failure)
        assert path in placed([v.field for v in failure.violations]), (path, failure)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
async def test_an_id_that_nobody_has_is_no_internal_error(
    client: Client, method: MethodDescriptor
) -> None:
    request = message_factory.GetMessageClass(method.input_type)()
    fill(request)

    failure = await call(client, method, request)

    if failure is not None:
        assert failure.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), failure
        assert failure.reason, f"{failure} has no ErrorInfo"
