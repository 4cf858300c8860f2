"""Replicas of the job service: its own code, on servers in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from simulation.audio import Upload
from simulation.bus import Bus, Messaging
from simulation.database import Pool, Server
from simulation.loop import Loop
from simulation.service import Service
from steno.job.dispatch import Dispatcher
from steno.job.domain import Job, NewJob, RequestId, RetryRules
from steno.job.jobs import Jobs, Limits
from steno.job.outbox import Outbox
from steno.job.reconcile import Reconciler
from steno.job.relay import Relay
from steno.job.servicer import TaskServicer
from steno.job.settings import Settings
from steno.job.store import Store
from steno.job.sweep import Sweeper
from steno.job.transcripts import Transcripts
from steno.job.watch import Watchers
from steno.platform.loops import Signal
from steno.v1 import job_pb2

SWEEP = 3.0
LEASE = 6.0
MOST_FAILURES = 3

SETTINGS = Settings.model_construct(
    models="builtin",
    task_lease_seconds=LEASE,
    job_sweep_seconds=SWEEP,
    job_message_check_seconds=4.0,
    job_audio_poll_seconds=2.0,
    job_deleted_poll_seconds=6.0,
    job_status_seconds=SWEEP,
    job_retention_hours=0.0,
)
RETRY_RULES = RetryRules(MOST_FAILURES, timedelta(seconds=1))
LIMITS = Limits(unfinished=1000, queued_hours=1000.0)

TRANSCRIPTS = Transcripts()


class Replica(Service):
    """A process of the job service: what `steno.job.__main__` wires."""

    sweep = SWEEP
    listening = 6

    def __init__(
        self,
        name: str,
        loop: Loop,
        database: Server,
        bus: Bus,
        upload: Upload,
        *,
        connections: int,
        retention: float,
    ) -> None:
        """Wires it.

        Args:
            name: of the process.
            loop: runs it.
            database: where its tables are.
            bus: the message server.
            upload: knows the recordings.
            connections: to the database, at most.
            retention: seconds after its end at which a job is deleted; 0: never.
        """
        settings = SETTINGS.model_copy(update={"job_retention_hours": retention / 3600})
        super().__init__(name, loop)
        pool: Any = Pool(database, connections)
        messaging: Any = Messaging(bus)
        audio: Any = upload
        changed = Signal()

        def committed(before: Job | None, after: Job) -> None:
            changed()
            if before is None:
                reconciler.created(after)

        self.store = store = Store(pool, timedelta(seconds=LEASE), RETRY_RULES, committed)
        outbox = Outbox(pool)
        self.watchers = watchers = Watchers(store, messaging)
        dispatcher = Dispatcher(outbox, messaging)
        relay = Relay(outbox, messaging)
        reconciler = Reconciler(store, outbox, messaging, audio, settings, changed)
        sweeper = Sweeper(store, settings)
        self.jobs = Jobs(store, audio, ["builtin"], LIMITS, LIMITS, timedelta(days=1))
        self.tasks = TaskServicer(store)

        def add(action: str, work: Callable[[], Awaitable[object]], **how: Any) -> None:
            self._add(action, work, **{"every": SWEEP} | how)

        add("receive_audio", reconciler.receive_audio, within=None)
        add("receive", watchers.receive, within=None)
        add("relay", relay.relay, woken=changed.waiter(), paced=True)
        add("dispatch", dispatcher.dispatch, woken=changed.waiter(), paced=True)
        add("deliver", watchers.deliver, woken=watchers.woken)
        add(
            "refresh_audio",
            reconciler.refresh_audio,
            woken=reconciler.audio_changed.waiter(),
        )
        add("join", sweeper.join, every=2 * SWEEP, woken=store.unjoined.waiter())
        add("end_late", sweeper.end_late)
        if retention:
            add("delete_old", sweeper.delete_old)
        add("check_messages", reconciler.check_messages)
        add("poll_audio", reconciler.poll_audio)
        add("poll", watchers.poll)
        add("expire_leases", sweeper.expire_leases)

    async def create_batch(self, new: NewJob, request: RequestId) -> Job:
        """BatchCreateJobs, with one job."""
        [job] = await self.jobs.create_all([(new, request)])
        return job

    async def transcript(self, job_id: Any, *, allow_partial: bool) -> list[str]:
        """GetTranscript: number and text of each segment."""
        joined = await self.jobs.transcript(job_id, allow_partial)
        rendered = await TRANSCRIPTS.render(
            joined, job_pb2.TRANSCRIPT_FORMAT_UNSPECIFIED, include_dropped=False
        )
        transcript = job_pb2.GetTranscriptResponse.FromString(rendered).transcript
        return [f"{each.index}:{each.text}" for each in transcript.segments]
