"""The contracts of proto/steno/v1, as tests look at them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from steno.v1 import (
    concatenation_pb2,
    job_pb2,
    transcription_pb2,
    upload_pb2,
    validation_pb2,
)
from steno.v1.validation_pb2 import FieldRules

PROTO = Path(__file__).parents[1] / "proto" / "steno" / "v1"

SERVICES = {
    "steno.v1.UploadService": "upload",
    "steno.v1.SliceService": "upload",
    "steno.v1.ImportService": "upload",
    "steno.v1.JobService": "job",
    "steno.v1.TaskService": "job",
    "steno.v1.TranscriptionService": "transcription",
    "steno.v1.WindowService": "transcription",
    "steno.v1.ConcatenationService": "concatenation",
}
"""Who serves what."""

NOBODY = "00000000-0000-7000-8000-000000000000"
"""An id that nothing has."""

ANYWHERE = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""What any call may end with, beside OK."""


def methods() -> list[MethodDescriptor]:
    """All RPCs of the contracts, sorted by name."""
    found = [
        method
        for file in (upload_pb2, job_pb2, transcription_pb2, concatenation_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    return sorted(found, key=lambda method: method.full_name)


def name_of(method: MethodDescriptor) -> str:
    """The name of an RPC, such as `JobService.GetJob`."""
    return method.full_name.removeprefix("steno.v1.")


def method(name: str) -> MethodDescriptor:
    """The RPC of a name such as `JobService.GetJob`."""
    (found,) = (each for each in methods() if each.full_name == f"steno.v1.{name}")
    return found


def request_type(method: MethodDescriptor) -> type[Message]:
    """The message that a call sends, or each that it streams."""
    return message_factory.GetMessageClass(method.input_type)


def rules_of(field: FieldDescriptor) -> FieldRules:
    """What stands beside a field."""
    return field.GetOptions().Extensions[validation_pb2.rules]


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field has keys and values."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_plain_message(field: FieldDescriptor) -> bool:
    """Whether a field holds a message of ours."""
    return (
        field.message_type is not None
        and not is_map(field)
        and field.message_type.full_name.startswith("steno.")
    )


def fill(request: Message) -> None:
    """Sets what must be set; ids are nobody's."""
    for field in cast(Descriptor, request.DESCRIPTOR).fields:
        rules = rules_of(field)
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
            inner = getattr(request, field.name)
            inner.SetInParent()
            fill(inner)
        else:
            setattr(request, field.name, 1)


def wrong_requests(kind: Any, prefix: str = "") -> Iterator[tuple[str, str, Message]]:
    """For each rule of a message's fields a request that breaks it.

    Yields the path of the field, what is wrong with it, and the request.
    """
    for field in kind.DESCRIPTOR.fields:
        rules = rules_of(field)
        path = prefix + field.name
        if rules.required:
            yield path, "is not set", kind()
        for what, value in _wrong_values(field, rules):
            request = kind()
            if is_map(field):
                getattr(request, field.name).update(value)
            elif field.is_repeated:
                getattr(request, field.name).extend(value)
            else:
                setattr(request, field.name, value)
            yield path, what, request
        if is_plain_message(field):
            inner = message_factory.GetMessageClass(field.message_type)
            for inner_path, what, inner_request in wrong_requests(inner, path + "."):
                request = kind()
                if field.is_repeated:
                    getattr(request, field.name).append(inner_request)
                else:
                    getattr(request, field.name).CopyFrom(inner_request)
                yield inner_path, what, request


def _wrong_values(field: FieldDescriptor, rules: FieldRules) -> Iterator[tuple[str, Any]]:
    if is_map(field):
        if rules.max_items:
            yield "has too many entries", {f"k{i}": "" for i in range(rules.max_items + 1)}
        if rules.key_pattern:
            yield "has a key that is none", {"no key!": ""}
        if rules.max_len:
            yield "has too long a value", {"k": "x" * (rules.max_len + 1)}
        return
    single: list[tuple[str, Any]] = []
    if rules.uuid or rules.pattern:
        single.append(("is not like it must be", "not right!\n"))
    if rules.max_len and rules.max_len < 2**20:
        text = "x" * (rules.max_len + 1)
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        single.append(("is too long", text.encode() if is_bytes else text))
    if rules.HasField("gte"):
        single.append(("is too small", rules.gte - 1))
        single.append(("is the least number there is", _range(field)[0]))
    if rules.HasField("lte"):
        single.append(("is too great", rules.lte + 1))
        single.append(("is the greatest number there is", _range(field)[1]))
    if field.enum_type is not None:
        single.append(("is a value that nobody knows", 99))
    if field.is_repeated:
        if rules.max_items:
            sample: Any = 1 if field.enum_type is not None else "x"
            if is_plain_message(field):
                assert field.message_type is not None
                sample = message_factory.GetMessageClass(field.message_type)()
            yield "has too many items", [sample] * (rules.max_items + 1)
        yield from ((what, [value]) for what, value in single)
    else:
        yield from single


def _range(field: FieldDescriptor) -> tuple[int, int]:
    bits = 63 if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 else 31
    return -(2**bits), 2**bits - 1


@cache
def documented() -> Mapping[str, Mapping[grpc.StatusCode, frozenset[str]]]:
    """The errors that the comment of each RPC tells, and their reasons, by the RPC's full name.

    Of an error without reasons any will do.
    """
    found: dict[str, dict[grpc.StatusCode, frozenset[str]]] = {}
    for file in PROTO.glob("*.proto"):
        text = file.read_text()
        service = ""
        for line in re.finditer(r"^service (\w+)|((?:^ +//.*\n)*)^ +rpc (\w+)", text, re.MULTILINE):
            service = line[1] or service
            if not line[3]:
                continue
            errors: dict[grpc.StatusCode, frozenset[str]] = {}
            for code, reasons in re.findall(r"\* `(\w+)`(?: \(([A-Z_, ]+)\))?", line[2]):
                names = frozenset(re.findall(r"\w+", reasons))
                known = errors.get(grpc.StatusCode[code], names)
                errors[grpc.StatusCode[code]] = known | names if known and names else frozenset()
            if those := re.search(r"Errors: those of (\w+)", line[2]):
                errors |= found[f"steno.v1.{service}.{those[1]}"]
            found[f"steno.v1.{service}.{line[3]}"] = errors
    return found
