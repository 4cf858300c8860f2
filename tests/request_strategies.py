"""Hypothesis strategies for calls, made from the contracts: what a field may hold, and what not.

Most fields of a message are in order, or it would never come past its validation; each has edges,
and now and then is wrong.
"""

from __future__ import annotations

import string
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from hypothesis import strategies as st

from all_services import QUIET, UNSERVED
from calling import TEN_YEARS, Call, Ending, Thing
from contract import NOBODY, is_map, is_plain_message, methods, name_of, request_type, rules_of
from corpus.calls import FORGED_TOKENS
from steno.v1.validation_pb2 import FieldRules

Strategy = st.SearchStrategy[Any]

_KINDS = {
    # field: kind of thing, and how many there are of it
    "audio_id": ("audio", 3),
    "upload_id": ("upload", 3),
    "job_id": ("job", 4),
    "task_id": ("task", 2),
    "session_id": ("session", 3),
    "request_id": ("request", 2),
    "producer_id": ("request", 2),
}

_TEXTS = st.text(max_size=12) | st.sampled_from(
    ["\0", "a\0b", "\u202e", "\U0001f399" * 9, "'; --", "../..", "%s%n", "\r\n", " ", "\x7f"]
)

_NUMBERS = (0, 1, -1, 2, 255, 2**16, 2**31 - 1, -(2**31))
_LONG_NUMBERS = (*_NUMBERS, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
_REALS = (0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, float("nan"), float("inf"), float("-inf"))

_CONTENTS = (b"", b"\0", bytes(640), bytes(3200), b"\xff" * 999, QUIET, QUIET[:100], b"RIFF")

# Seconds and nanoseconds.
_LENGTHS = ((0, 0), (1, 0), (0, 1), (0, 500_000_000), (5, 0), (3600, 0), (86_400, 0))
_WRONG_LENGTHS = (
    *((-1, 0), (0, -1), (1, -1), (315_576_000_000, 999_999_999), (315_576_000_001, 0)),
    *((-315_576_000_000, 0), (2**63 - 1, 2**31 - 1), (-(2**63), -(2**31)), (0, 10**9)),
)
_TIMES = ((0, 0), (1_700_000_000, 0), (2_000_000_000, 999_999_999), (4_000_000_000, 1))
_WRONG_TIMES = (
    *((-62_135_596_800, 0), (253_402_300_799, 999_999_999), (-62_135_596_801, 0), (-1, 0)),
    *((253_402_300_800, 0), (2**63 - 1, 0), (-(2**63), -1), (0, -1), (0, 10**9)),
)


def _mostly(usual: Strategy, *others: Strategy) -> Strategy:
    """A value in order, seven times of eight."""
    if not others:
        return usual
    return st.integers(0, 7).flatmap(lambda dice: st.one_of(others) if dice == 7 else usual)


def _pairs(usual: tuple[Any, ...], wrong: tuple[Any, ...]) -> Strategy:
    def of(pairs: tuple[Any, ...]) -> Strategy:
        return st.sampled_from(pairs).map(lambda pair: {"seconds": pair[0], "nanos": pair[1]})

    return _mostly(of(usual), of(wrong))


def _text(field: FieldDescriptor, rules: FieldRules) -> Strategy:
    name = field.name
    if name in _KINDS:
        kind, count = _KINDS[name]
        things = st.sampled_from([Thing(kind, number) for number in range(count)])
        wrong = [NOBODY, "", "x", NOBODY.upper(), f"{{{NOBODY}}}", f"urn:uuid:{NOBODY}", "\0"]
        return _mostly(things, st.sampled_from(wrong))
    if name == "page_token":
        return _mostly(
            st.just(""), st.sampled_from([*FORGED_TOKENS.values()]), st.text(max_size=40)
        )
    if name == "language_code":
        return _mostly(st.sampled_from(["en", "auto", ""]), st.sampled_from(["de", "xx", "EN"]))
    if name == "model":
        return _mostly(st.sampled_from(["", "builtin", UNSERVED]), _TEXTS)
    if name in ("sha256", "object_key", "content_type"):
        right = {"sha256": "0" * 64, "object_key": "recordings/a/b", "content_type": "audio/wav"}
        return _mostly(st.sampled_from(["", right[name]]), _TEXTS)
    usual = st.text(string.ascii_letters, min_size=1, max_size=8)
    others = [_TEXTS]
    if rules.max_len:
        others.append(st.sampled_from(["x" * rules.max_len, "x" * (rules.max_len + 1)]))
    return _mostly(usual, *others)


def _number(field: FieldDescriptor, rules: FieldRules) -> Strategy:
    long = field.cpp_type == FieldDescriptor.CPPTYPE_INT64
    edges = list(_LONG_NUMBERS if long else _NUMBERS)
    if rules.HasField("gte"):
        edges.append(rules.gte - 1)
    if rules.HasField("lte"):
        edges += [rules.lte, rules.lte + 1]
    usual = st.sampled_from([0, 1, 2, 3])
    if field.name == "sample_rate_hertz":
        usual = st.sampled_from([16_000, 0, 48_000])
    return _mostly(usual, st.sampled_from(edges))


def _single(field: FieldDescriptor) -> Strategy:
    """One value of a field."""
    rules = rules_of(field)
    kind = field.cpp_type
    if field.enum_type is not None:
        known = st.sampled_from(sorted(field.enum_type.values_by_number))
        return _mostly(known, st.sampled_from([99, -1, 2**31 - 1]))
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        assert field.message_type is not None
        if field.message_type.full_name == "google.protobuf.Duration":
            return _pairs(_LENGTHS, _WRONG_LENGTHS)
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return _pairs(_TIMES, _WRONG_TIMES)
        return fields_of(field.message_type)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return st.sampled_from(_REALS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.sampled_from(_CONTENTS) | st.binary(max_size=40)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _text(field, rules)
    return _number(field, rules)


def _values(field: FieldDescriptor) -> Strategy:
    """All that a field may hold."""
    if is_map(field):
        return st.dictionaries(
            _mostly(st.text(string.ascii_lowercase, min_size=1, max_size=4), _TEXTS),
            _mostly(st.text(string.ascii_lowercase, max_size=4), _TEXTS),
            max_size=3,
        )
    if not field.is_repeated:
        return _single(field)
    least = 1 if rules_of(field).required else 0
    usual = st.lists(_single(field), min_size=least, max_size=2)
    most = rules_of(field).max_items
    if not most or is_plain_message(field):
        return usual
    return _mostly(usual, _single(field).map(lambda value: [value] * (most + 1)))


def _later(field: FieldDescriptor) -> Strategy:
    return st.deferred(lambda: _values(field))


@cache
def fields_of(message: Descriptor) -> Strategy:
    """What a message may hold: what it must, mostly, and of the rest a few."""
    fields = {field.name: _later(field) for field in message.fields}
    groups = [[field.name for field in group.fields] for group in message.oneofs]
    plain = [
        [field.name]
        for field in message.fields
        if field.containing_oneof is None and not rules_of(field).required
    ]
    required = [[field.name] for field in message.fields if rules_of(field).required]
    choices = [group for group in groups if len(group) > 1]
    optional = plain + [group for group in groups if len(group) == 1]

    @st.composite
    def drawn(draw: st.DrawFn) -> dict[str, Any]:
        names = [draw(st.sampled_from(group)) for group in choices]
        names += [name for (name,) in required if draw(st.integers(0, 31)) != 31]
        if optional:
            wanted = st.lists(
                st.sampled_from(optional), max_size=3, unique_by=lambda group: group[0]
            )
            names += [name for (name,) in draw(wanted)]
        return {name: draw(fields[name]) for name in names}

    return drawn()


_METADATA = st.lists(
    st.sampled_from(
        [
            ("x-steno-tenant", "default"),
            ("x-steno-tenant", "other"),
            ("x-steno-tenant", ""),
            ("x-steno-tenant", "UPPER"),
            ("x-steno-tenant", "x" * 64),
            ("x-steno-tenant-bin", b"\xff\0"),
            ("traceparent", "00-" + "f" * 32 + "-" + "0" * 16 + "-01"),
            ("traceparent", "not a trace"),
            ("baggage", "a=b," * 200),
            ("grpc-previous-rpc-attempts", "-1"),
            ("authorization", "Bearer " + "x" * 500),
        ]
    ),
    max_size=3,
).map(tuple)


def _stream_messages(method: MethodDescriptor) -> Strategy:
    """Messages in order; or none, or two first ones, or a first one later."""
    message = method.input_type
    first, *_ = (field.name for field in message.oneofs[0].fields)
    (rest,) = (field.name for field in message.oneofs[0].fields if field.name != first)
    firsts = st.fixed_dictionaries({first: _values(message.fields_by_name[first])})
    others = st.fixed_dictionaries({rest: _values(message.fields_by_name[rest])})
    in_order = st.tuples(firsts, st.lists(others, max_size=3)).map(lambda m: (m[0], *m[1]))
    in_disorder = st.lists(firsts | others | st.just({}), max_size=3).map(tuple)
    return _mostly(in_order, in_disorder)


@cache
def calls_of(method: MethodDescriptor) -> st.SearchStrategy[Call]:
    """Calls of one RPC."""
    name = name_of(method)
    messages = (
        _stream_messages(method)
        if method.client_streaming
        else st.tuples(fields_of(request_type(method).DESCRIPTOR))
    )
    noise = st.tuples(st.binary(min_size=1, max_size=20))
    return st.builds(
        Call,
        method=st.just(name),
        messages=st.integers(0, 31).flatmap(lambda dice: noise if dice == 31 else messages),
        metadata=_mostly(st.just(()), _METADATA),
        deadline=_mostly(st.none(), st.sampled_from([0.0, 0.001, 0.01, TEN_YEARS])),
        ending=_mostly(st.just(Ending.WAIT), st.sampled_from([Ending.HALF, Ending.CANCEL])),
    )


def scripts(length: int) -> st.SearchStrategy[list[Call]]:
    """So many calls of any RPC, one after the other, about the same things."""
    one = st.sampled_from(sorted(methods(), key=lambda each: each.name)).flatmap(calls_of)
    return st.lists(one, min_size=length, max_size=length)
