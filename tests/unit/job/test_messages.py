"""Watchers share the bytes of an event."""

import pytest

from steno.job.messages import render_event_response
from steno.v1.job_pb2 import JobEvent, WatchJobResponse


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 20_000, 3_000_000])
def test_the_response_is_what_protobuf_makes_of_the_event(length: int) -> None:
    event = JobEvent(revision=7)
    event.segments_added.segments.add(text="x" * length)

    response = render_event_response(event.SerializeToString())

    assert response == WatchJobResponse(event=event).SerializeToString()
