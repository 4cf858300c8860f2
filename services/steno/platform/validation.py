"""Checks requests against the rules that stand beside their fields in proto/.

The rules are the option `(steno.v1.rules)`; validation.proto says what each means.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from steno.platform.errors import MOST_VIOLATIONS, InvalidArgument, Violation, shortened
from steno.v1 import validation_pb2
from steno.v1.validation_pb2 import FieldRules

_NUL = "\x00"
"""Postgres keeps it neither in text nor in jsonb."""

_MOST_KEY_BYTES = 64
"""How much of a map's key names the entry."""


def validate(request: Message) -> None:
    """Refuses a request that breaks a rule of its contract.

    Raises:
        InvalidArgument: with one violation for each broken rule; of many, the first.
    """
    violations = list(islice(_violations(request, ""), MOST_VIOLATIONS + 1))
    if violations:
        raise InvalidArgument(violations)


def carries_content(message: Descriptor) -> bool:
    """Whether a request may hold audio, and so be large: it has a field of bytes."""
    return any(
        field.type == FieldDescriptor.TYPE_BYTES
        or (field.message_type is not None and carries_content(field.message_type))
        for field in message.fields
    )


@cache
def _rules(field: FieldDescriptor) -> FieldRules:
    return field.GetOptions().Extensions[validation_pb2.rules]


@cache
def _needs_a_look(message: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Fields that have rules, enums (whose values are closed), and messages to look into."""
    return tuple(
        field
        for field in message.fields
        if field.GetOptions().HasExtension(validation_pb2.rules)
        or field.message_type is not None
        or field.enum_type is not None
    )


def _violations(message: Message, prefix: str) -> Iterator[Violation]:
    for field in _needs_a_look(message.DESCRIPTOR):
        path = prefix + field.name
        rules = _rules(field)
        value = getattr(message, field.name)
        if rules.required and not _is_set(message, field, value):
            yield Violation(path, "must be set")
            continue
        if _is_map(field):
            yield from _map_violations(value, rules, path)
        elif field.is_repeated:
            if rules.max_items and len(value) > rules.max_items:
                yield Violation(path, f"has {len(value)} items, at most {rules.max_items} allowed")
                continue  # to look at all of them costs whoever sends them less than us
            for index, item in enumerate(value):
                yield from _value_violations(field, item, rules, f"{path}[{index}]")
        elif field.message_type is None or message.HasField(field.name):
            yield from _value_violations(field, value, rules, path)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_set(message: Message, field: FieldDescriptor, value: Any) -> bool:
    if field.message_type is not None and not field.is_repeated:
        return message.HasField(field.name)
    return bool(value)


def _map_violations(value: Mapping[str, str], rules: FieldRules, path: str) -> Iterator[Violation]:
    if rules.max_items and len(value) > rules.max_items:
        yield Violation(path, f"has {len(value)} entries, at most {rules.max_items} allowed")
        return
    for key, text in value.items():
        place = f"{path}[{shortened(key, _MOST_KEY_BYTES)!r}]"
        if rules.key_pattern and not re.fullmatch(rules.key_pattern, key):
            yield Violation(place, f"key must match {rules.key_pattern}")
        elif _NUL in key:
            yield Violation(place, "key must not hold a NUL character")
        if rules.max_len and len(text) > rules.max_len:
            yield Violation(place, f"is longer than {rules.max_len} characters")
        if _NUL in text:
            yield Violation(place, "must not hold a NUL character")


def _value_violations(
    field: FieldDescriptor, value: Any, rules: FieldRules, path: str
) -> Iterator[Violation]:
    if field.message_type is not None:
        if field.message_type.full_name in _RANGED:
            yield from _range_violations(value, path)
        else:
            yield from _violations(value, path + ".")
    elif field.enum_type is not None:
        if value not in field.enum_type.values_by_number:
            names = ", ".join(v.name for v in field.enum_type.values if v.number)
            yield Violation(path, f"must be one of {names}")
    elif isinstance(value, (str, bytes)):
        yield from _text_violations(value, rules, path)
    elif isinstance(value, int):
        if rules.HasField("gte") and value < rules.gte:
            yield Violation(path, f"is {value}, must be at least {rules.gte}")
        if rules.HasField("lte") and value > rules.lte:
            yield Violation(path, f"is {value}, must be at most {rules.lte}")


def _text_violations(value: str | bytes, rules: FieldRules, path: str) -> Iterator[Violation]:
    if rules.max_len and len(value) > rules.max_len:
        unit = "characters" if isinstance(value, str) else "bytes"
        yield Violation(path, f"has {len(value)} {unit}, at most {rules.max_len} allowed")
        return
    if not isinstance(value, str) or not value:
        return
    if _NUL in value:
        yield Violation(path, "must not hold a NUL character")
    if rules.pattern and not re.fullmatch(rules.pattern, value):
        yield Violation(path, f"must be {rules.pattern_hint or 'like ' + rules.pattern}")
    if rules.uuid and not _is_uuid(value):
        yield Violation(path, "must be a UUID, such as the server hands out")


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


# Well-known types whose fields can hold what they don't mean: ToDatetime() would raise. Least and
# greatest seconds, and least nanos: those of a Timestamp always count forward.
_RANGED = {
    "google.protobuf.Timestamp": (-62_135_596_800, 253_402_300_799, 0),
    "google.protobuf.Duration": (-315_576_000_000, 315_576_000_000, -999_999_999),
}


def _range_violations(value: Any, path: str) -> Iterator[Violation]:
    least, greatest, least_nanos = _RANGED[value.DESCRIPTOR.full_name]
    if not (least <= value.seconds <= greatest and least_nanos <= value.nanos <= 999_999_999):
        yield Violation(path, f"is not a valid {value.DESCRIPTOR.name}")
