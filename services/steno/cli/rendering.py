"""Results as tables, lines and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from steno.v1 import concatenation_pb2, job_pb2, upload_pb2
from steno.v1.transcript_pb2 import Segment


def fields(message: Message) -> dict[str, Any]:
    """A message as JSON has it: the proto's field names, also those with nothing in them."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def say(line: str) -> None:
    """Writes a line to stderr."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Writes JSON to stdout; without indent it is one line."""
    print(json.dumps(value, ensure_ascii=False, indent=indent), flush=True)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes columns, as wide as they need to be. Without rows only the heads."""
    lines = [tuple(heads), *(tuple(_one_line(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def print_page(
    name: str,
    things: Iterable[Message],
    next_page_token: str,
    columns: Mapping[str, Callable[[Any], str]],
    *,
    as_json: bool,
) -> None:
    """Writes one page of a listing, and on stderr how to see the next, if there is one.

    Args:
        name: of the things, in JSON.
        things: what is listed.
        next_page_token: empty on the last page.
        columns: of the table, by their heads.
        as_json: write all fields instead; the token among them.
    """
    if as_json:
        print_json({name: [fields(each) for each in things], "next_page_token": next_page_token})
        return
    cells = columns.values()
    print_table(tuple(columns), ([cell(each) for cell in cells] for each in things))
    if next_page_token:
        print(f"steno: there are more; add --page-token {next_page_token}", file=sys.stderr)


def print_fields(values: Mapping[str, str]) -> None:
    """Writes a thing's fields, one a line, leaving out what is empty."""
    width = max(map(len, values))
    for name, value in values.items():
        if value:
            print(f"{name.ljust(width)}  {_one_line(value)}")
    sys.stdout.flush()


def clock(length: Duration | float) -> str:
    """A length of time as `m:ss` or `h:mm:ss`."""
    seconds = length if isinstance(length, int | float) else _seconds(length)
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def time(stamp: Timestamp) -> str:
    """A moment in this machine's time; empty when there is none."""
    if not stamp.ByteSize():
        return ""
    moment = datetime.fromtimestamp(stamp.seconds, UTC).astimezone()
    return moment.isoformat(" ", "seconds")[:19]


def size(count: int) -> str:
    """A number of bytes."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def percent(fraction: float) -> str:
    """A share in whole percent, rounded down: 100% is all of it."""
    return f"{int(fraction * 100)}%"


def job_state(state: job_pb2.JobState.ValueType) -> str:
    """The state as people write it."""
    return job_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()


def audio_state(audio: upload_pb2.Audio) -> str:
    """The state as people write it; parked is what waits because its preparation failed."""
    if audio.HasField("preparation_failure"):
        return "parked"
    return upload_pb2.AudioState.Name(audio.state).removeprefix("AUDIO_STATE_").lower()


def session_state(state: concatenation_pb2.SessionState.ValueType) -> str:
    """The state as people write it."""
    return concatenation_pb2.SessionState.Name(state).removeprefix("SESSION_STATE_").lower()


def segment_line(segment: Segment) -> str:
    """What was said, and when."""
    text = " ".join(segment.text.split())
    return f"[{clock(segment.start_offset)} - {clock(segment.end_offset)}] {text}"


def _seconds(length: Duration) -> float:
    return length.seconds + length.nanos / 1e9


def _one_line(text: str) -> str:
    """Without line breaks and control characters: a name must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
