"""What the job service tells of its queue."""

from __future__ import annotations

from typing import Any

from steno.job.metrics import QUEUED, Meter
from steno.job.outbox import Statistics


class Waiting:
    """Stands for the database and for NATS."""

    def __init__(self, queued: dict[str, float]) -> None:
        self._queued = queued

    async def statistics(self) -> Statistics:
        return Statistics({}, {}, self._queued, 0.0, 0, 0.0)

    async def stored_bytes(self) -> tuple[int, int]:
        return 0, 0


def told() -> dict[str, float]:
    (metric,) = QUEUED.collect()
    return {sample.labels["model"]: sample.value for sample in metric.samples}


async def test_the_queue_of_a_model_is_told_when_it_is_empty_too() -> None:
    for queued in ({"large-v3": 90.0, "gone": 5.0}, {}):
        waiting: Any = Waiting(queued)
        await Meter(waiting, waiting, ["tiny.en", "large-v3"]).measure()
        assert told() == {"tiny.en": 0.0, "large-v3": 0.0, **queued}
