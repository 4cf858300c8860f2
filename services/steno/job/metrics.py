"""How much there is, and what happens, for Prometheus and the logs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram

from steno.job.domain import Attempt, Failure, Job, JobState, TaskState
from steno.job.outbox import Outbox
from steno.platform.errors import Unavailable
from steno.platform.messaging import Messaging
from steno.transcript import SAMPLE_RATE

log = logging.getLogger(__name__)

# Counted in the database, so each replica says the same.
JOBS = Gauge("steno_jobs", "Jobs that have not ended.", ["state"])
TASKS = Gauge("steno_job_tasks", "Tasks that have not ended.", ["state"])
QUEUED = Gauge("steno_job_queue_audio_seconds", "Audio of jobs that have not ended.", ["model"])
OLDEST = Gauge(
    "steno_job_oldest_task_seconds",
    "Longest time for which a task waits for a worker, since it was made or may be tried again.",
)
PARKED = Gauge(
    "steno_job_parked_tasks",
    "Tasks that failed or lost their worker, and wait for their next try.",
)
OUTBOX = Gauge("steno_job_outbox_lag_seconds", "Age of the oldest event that NATS has not got.")

STORED = Gauge("steno_nats_stored_bytes", "Storage in bytes that Steno's NATS account uses.")
MOST_STORED = Gauge(
    "steno_nats_storage_limit_bytes",
    "Storage limit of Steno's NATS account in bytes; 0 if unlimited.",
)

# Counted where it happens: add up the replicas.
MOVES = Counter("steno_job_moves", "Jobs that came to a state.", ["state"])
AUDIO = Counter("steno_job_audio_seconds", "Audio of jobs that have succeeded.")
ATTEMPTS = Counter("steno_job_attempts", "Attempts at tasks, by their end.", ["model", "end"])
WAITED = Histogram(
    "steno_job_task_wait_seconds",
    "Time until the first lease of a task, since it was made or its job may begin.",
    ["model"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600),
)

ENDS = {
    None: "done",
    Failure.RETRYABLE: "failed",
    Failure.PERMANENT: "refused",
    Failure.EXPIRED: "expired",
    Failure.HANDED_BACK: "handed_back",
    Failure.UNREADABLE: "unreadable",
}


def record(before: Job | None, after: Job) -> None:
    """Counts and logs that a job was made, or came to another state."""
    if before is not None and before.state is after.state:
        return
    MOVES.labels(after.state).inc()
    if after.state is JobState.SUCCEEDED:
        AUDIO.inc(after.sample_count / SAMPLE_RATE)
    fields = {"action": "move", "job_id": str(after.job_id), "state": after.state}
    if after.error is not None:
        fields["reason"] = after.error.reason
    log.info("job is %s", after.state, extra=fields)


def record_attempt(job: Job, attempt: Attempt) -> None:
    """Counts that a task was leased for the first time, or that a lease of it ended."""
    task, model = attempt.task, job.config.model
    if task.state is not TaskState.LEASED:
        ATTEMPTS.labels(model, ENDS[attempt.failure]).inc()
    elif task.attempt == 1 and task.create_time is not None:
        since = max(task.create_time, job.not_before or task.create_time)
        WAITED.labels(model).observe((attempt.time - since).total_seconds())


class Meter:
    """Counts again and again what is in the store, and how full NATS is."""

    def __init__(self, outbox: Outbox, messaging: Messaging, models: Sequence[str]) -> None:
        """Takes where to look, and the models that jobs may ask for."""
        self._outbox = outbox
        self._messaging = messaging
        self._models = models

    async def measure(self) -> None:
        """Sets the gauges to what there is now."""
        statistics = await self._outbox.statistics()
        for job_state in (JobState.QUEUED, JobState.RUNNING):
            JOBS.labels(job_state).set(statistics.jobs.get(job_state, 0))
        for task_state in (TaskState.PENDING, TaskState.LEASED):
            TASKS.labels(task_state).set(statistics.tasks.get(task_state, 0))
        QUEUED.clear()
        # An empty queue is told too: who asks for it can tell it from one that nobody looks at.
        for model, seconds in {**dict.fromkeys(self._models, 0.0), **statistics.queued}.items():
            QUEUED.labels(model).set(seconds)
        OLDEST.set(statistics.oldest_task)
        PARKED.set(statistics.parked_tasks)
        OUTBOX.set(statistics.outbox_lag)
        with suppress(Unavailable):  # while it is away, it is as full as it was
            stored, most = await self._messaging.stored_bytes()
            STORED.set(stored)
            MOST_STORED.set(most)
