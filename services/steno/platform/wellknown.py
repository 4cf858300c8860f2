"""Python's times and lengths as protobuf's, and back."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def seconds_of(duration: Duration) -> float:
    """A duration as seconds."""
    return duration.seconds + duration.nanos / 1e9


def duration_of(seconds: float) -> Duration:
    """Seconds as a duration, to the nanosecond: whatever is a count of samples stays exact."""
    rendered = Duration()
    rendered.FromNanoseconds(round(seconds * 1_000_000_000))
    return rendered


def timestamp_of(time: datetime | None) -> Timestamp | None:
    """A time as a timestamp; None stays None."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
