"""How much there is, for Prometheus: counted in the database, so each replica says the same."""

from __future__ import annotations

from prometheus_client import Gauge

from steno.job.domain import JobState, TaskState
from steno.job.store import Store

JOBS = Gauge("steno_jobs", "Jobs by state.", ["state"])
TASKS = Gauge("steno_job_tasks", "Tasks by state.", ["state"])
QUEUED = Gauge("steno_job_queue_audio_seconds", "Audio of jobs that have not ended.", ["model"])
OUTBOX = Gauge("steno_job_outbox_lag_seconds", "Age of the oldest event that NATS has not got.")


class Meter:
    """Counts again and again what is in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def measure(self) -> None:
        """Sets the gauges to what there is now."""
        statistics = await self._store.statistics()
        for job_state in JobState:
            JOBS.labels(job_state).set(statistics.jobs.get(job_state, 0))
        for task_state in TaskState:
            TASKS.labels(task_state).set(statistics.tasks.get(task_state, 0))
        QUEUED.clear()
        for model, seconds in statistics.queued.items():
            QUEUED.labels(model).set(seconds)
        OUTBOX.set(statistics.outbox_lag)
