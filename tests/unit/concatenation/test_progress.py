"""The newest known state of a session, whatever the database's clock says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from steno.concatenation.progress import Progress

from .conftest import SESSION


def test_what_was_read_before_and_comes_later_is_ignored() -> None:
    progress = Progress(SESSION, lambda: None)
    first = replace(SESSION, frame_count=10, revision=2)
    second = replace(first, frame_count=20)

    progress.see(second)
    progress.see(first)

    assert progress.session is second


def test_a_clock_that_is_behind_after_a_failover_stops_nothing() -> None:
    progress = Progress(SESSION, lambda: None)
    back = SESSION.update_time - timedelta(hours=1)
    news = replace(SESSION, frame_count=10, update_time=back)

    progress.see(news)

    assert progress.session is news
