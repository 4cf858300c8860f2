"""Wires the job service: `python -m steno.job`."""

from __future__ import annotations

import asyncio

from steno.job.audio import AudioSource
from steno.job.dispatch import Dispatcher
from steno.job.domain import Attempt, Job, JobNotFound
from steno.job.jobs import Jobs, Limits
from steno.job.metrics import Meter, record, record_attempt
from steno.job.outbox import Outbox
from steno.job.reconcile import AT_ONCE, Reconciler
from steno.job.relay import Relay
from steno.job.servicer import STATUS_OF, JobServicer, TaskServicer
from steno.job.settings import Settings
from steno.job.store import Store
from steno.job.sweep import Sweeper
from steno.job.transcripts import Transcripts
from steno.job.watch import Watchers
from steno.platform import messaging as nats
from steno.platform.access import Resource
from steno.platform.client import open_channel
from steno.platform.database import checks, open_pool
from steno.platform.loops import Signal, repeat, running
from steno.platform.process import run
from steno.platform.server import GrpcServer
from steno.platform.tls import trusted
from steno.v1.job_pb2_grpc import (
    add_JobServiceServicer_to_server,
    add_TaskServiceServicer_to_server,
)

SERVICES = ["steno.v1.JobService", "steno.v1.TaskService"]
METRICS_SECONDS = 5.0
RETENTION_SECONDS = 60.0
JOIN_SECONDS = 10.0
"""Only joins that a replica left when it died wait so long."""


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves until told to stop."""
    async with (
        open_pool(settings) as pool,
        nats.connect(settings, "job") as messaging,
        open_channel(settings.upload_address, tls=trusted(settings.tls_ca)) as upload,
    ):
        told, changed = Signal(), Signal()

        def committed(before: Job | None, after: Job) -> None:
            record(before, after)
            if before is None or before.revision != after.revision:
                told()
            if before != after:
                changed()
            if before is None:
                reconciler.created(after)

        def attempted(job: Job, attempt: Attempt) -> None:
            record_attempt(job, attempt)
            changed()

        store = Store(pool, settings.task_lease, settings.retry_rules, committed, attempted)
        outbox = Outbox(pool)
        audio = AudioSource(upload)
        watchers = Watchers(store, messaging)
        dispatcher = Dispatcher(outbox, messaging)
        relay = Relay(outbox, messaging)
        reconciler = Reconciler(store, outbox, messaging, audio, settings, changed)
        sweeper = Sweeper(store, settings)
        meter = Meter(outbox, messaging, settings.offered_models)

        # Ready without NATS: jobs are taken in, and their events and tasks sent when it is back.
        server = GrpcServer(
            settings,
            SERVICES,
            STATUS_OF,
            checks(pool, "job"),
            resources={"job_id": Resource(store.tenant_of, JobNotFound)},
        )
        jobs = Jobs(
            store,
            audio,
            settings.offered_models,
            Limits(settings.job_max_unfinished, settings.job_max_queued_hours),
            Limits(settings.job_tenant_max_unfinished, settings.job_tenant_max_queued_hours),
            settings.longest_wait,
        )
        add_JobServiceServicer_to_server(JobServicer(jobs, watchers, Transcripts()), server.server)
        add_TaskServiceServicer_to_server(TaskServicer(store), server.server)

        sweep = settings.job_sweep_seconds
        async with (
            running(
                repeat("relay", relay.relay, sweep, told.waiter(), paced=True),
                repeat("dispatch", dispatcher.dispatch, sweep, changed.waiter(), paced=True),
                repeat("join", sweeper.join, JOIN_SECONDS, store.unjoined.waiter()),
                repeat("end_late", sweeper.end_late, sweep),
                repeat("delete_old", sweeper.delete_old, RETENTION_SECONDS),
                repeat("check_messages", reconciler.check_messages, sweep),
                repeat("poll_audio", reconciler.poll_audio, sweep),
                repeat("receive_audio", reconciler.receive_audio, sweep, within=None),
                *(
                    repeat(
                        "refresh_audio",
                        reconciler.refresh_audio,
                        sweep,
                        reconciler.audio_changed.waiter(),
                    )
                    for _ in range(AT_ONCE)
                ),
                repeat("receive", watchers.receive, sweep, within=None),
                repeat("deliver", watchers.deliver, settings.job_status_seconds, watchers.woken),
                repeat("poll", watchers.poll, settings.job_status_seconds),
                repeat("measure", meter.measure, METRICS_SECONDS),
            ),
            server,
            # Workers must be able to renew their leases before one can be past its time.
            running(repeat("expire_leases", sweeper.expire_leases, sweep)),
        ):
            await stopping.wait()


if __name__ == "__main__":
    run("job", Settings, main)
