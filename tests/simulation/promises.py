"""What any service promises, whatever it is for."""

from __future__ import annotations

from collections.abc import Iterator

from simulation.evidence import Evidence


def everybody_is_answered(seen: Evidence) -> Iterator[str]:
    """Once nothing goes wrong any more, callers and watchers come to their end."""
    for who in seen.late:
        yield f"{who} still waits"


def each_event_reaches_nats(seen: Evidence) -> Iterator[str]:
    """An event is marked as published after NATS has it."""
    had: dict[str, float] = {}
    for published in seen.bus.published:
        had.setdefault(published.message_id, published.time)
    for change in seen.changes["events"]:
        if change.new is not None and change.new["published"]:
            of, revision = change.key
            if had.get(f"{of}.{revision}", float("inf")) > change.time:
                yield f"revision {revision} of {of} was marked, and never sent"


def nothing_fails_in_the_background(seen: Evidence) -> Iterator[str]:
    """The loops of the service log no error but that a server is away."""
    yield from seen.history.complaints
