"""The newest known state of a session, whatever the database's clock says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from steno.concatenation.latest import Latest

from .conftest import SESSION


def test_what_was_read_before_and_comes_later_is_ignored() -> None:
    latest = Latest(SESSION, lambda: None)
    first = replace(SESSION, frame_count=10, revision=2)
    second = replace(first, frame_count=20)

    latest.update(second)
    latest.update(first)

    assert latest.session is second


def test_a_clock_that_is_behind_after_a_failover_stops_nothing() -> None:
    latest = Latest(SESSION, lambda: None)
    back = SESSION.update_time - timedelta(hours=1)
    news = replace(SESSION, frame_count=10, update_time=back)

    latest.update(news)

    assert latest.session is news
