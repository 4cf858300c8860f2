"""What live sessions promise, held against what a schedule has left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simulation.evidence import Evidence, Promise
from simulation.neighbours import Channel
from simulation.objects import Bucket


@dataclass
class SessionEvidence(Evidence):
    """What a schedule of live sessions has left: the bucket, and what sessions became."""

    bucket: Bucket
    neighbours: Channel


def everybody_is_answered(seen: SessionEvidence) -> Iterator[str]:
    """Once nothing goes wrong any more, callers and watchers come to their end."""
    for who in seen.late:
        yield f"{who} still waits"


def nothing_fails_in_the_background(seen: SessionEvidence) -> Iterator[str]:
    """The loops of the service log no error but that a server is away."""
    yield from seen.history.complaints


PROMISES: tuple[Promise, ...] = (everybody_is_answered, nothing_fails_in_the_background)
