"""The environment of the job service."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from steno.job.domain import RetryRules
from steno.models.catalogue import DEFAULT
from steno.platform.settings import NatsSettings, PostgresSettings, ProcessSettings


class Settings(ProcessSettings, PostgresSettings, NatsSettings):
    """What `python -m steno.job` reads."""

    listen: str = "0.0.0.0:50052"
    """Address of the gRPC server, `host:port`; port 0 takes a free one."""
    upload_address: str = "localhost:50051"
    """Address of the upload service, which knows the audio and its slices."""
    models: str = DEFAULT
    """Models that jobs may ask for, separated by commas. The first is used when none is named.
    Each needs workers that serve it, or its jobs wait for ever."""
    job_max_unfinished: int = Field(10_000, gt=0)
    """Jobs that wait or run at once; more are answered RESOURCE_EXHAUSTED."""
    job_max_queued_hours: float = Field(10_000, gt=0)
    """Hours of audio that wait or run at once; while there are more, new jobs are answered
    RESOURCE_EXHAUSTED."""
    job_tenant_max_unfinished: int = Field(5_000, gt=0)
    """Jobs of one tenant that wait or run at once; more are answered RESOURCE_EXHAUSTED."""
    job_tenant_max_queued_hours: float = Field(5_000, gt=0)
    """Hours of audio of one tenant that wait or run at once; while there are more, its new jobs are
    answered RESOURCE_EXHAUSTED."""
    job_max_not_before_days: float = Field(30, gt=0)
    """Days ahead that a job's `not_before` may lie at most: a job that waits takes room as one that
    runs."""
    job_retention_hours: float = Field(0, ge=0)
    """Hours after its end at which a job is deleted with its transcript; 0: never."""
    task_lease_seconds: float = Field(20, gt=0)
    """Silence after which a slice is handed to another worker. Workers renew every
    STENO_TASK_REPORT_SECONDS, or three times as often as this."""
    task_max_failures: int = Field(5, gt=0)
    """Failures of a slice that make its job fail, or leave the slice out where the job allows gaps:
    those that its worker reports, while nothing ran beside it. A lost worker is not a failure."""
    task_max_pause_seconds: float = Field(300, gt=0)
    """Longest pause before a slice is tried again. It is at once after the first try that came to
    nothing, 2 s after the second, and then twice as long each time."""
    job_sweep_seconds: float = Field(1, gt=0)
    """Seconds between two polls for expired leases, and for tasks and events that were not sent."""
    job_message_check_seconds: float = Field(10, gt=0)
    """Seconds that a task waits before its message is checked in the queue, and sent again if it is
    gone."""
    job_audio_poll_seconds: float = Field(5, gt=0)
    """Seconds between two polls of an audio that is being prepared. Only changes whose message NATS
    has lost wait so long."""
    job_deleted_poll_seconds: float = Field(60, gt=0)
    """Seconds between two checks whether the audio of a job that has not ended is still there."""
    job_status_seconds: float = Field(1, gt=0)
    """Seconds between two polls of the jobs that are being watched: what NATS has lost waits so
    long."""

    @property
    def offered_models(self) -> list[str]:
        """The models, in order."""
        return [name.strip() for name in self.models.split(",") if name.strip()]

    @property
    def longest_wait(self) -> timedelta:
        """How far ahead a job's `not_before` may lie."""
        return timedelta(days=self.job_max_not_before_days)

    @property
    def retry_rules(self) -> RetryRules:
        """How long a slice is tried."""
        return RetryRules(self.task_max_failures, timedelta(seconds=self.task_max_pause_seconds))

    @property
    def task_lease(self) -> timedelta:
        """Silence after which a slice is handed to another worker."""
        return timedelta(seconds=self.task_lease_seconds)
