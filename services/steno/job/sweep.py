"""Ends and removes what is past its time: leases, deadlines, old jobs, and joins that were left.

Replicas may sweep at the same time: whatever one has done, another finds done.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from steno.job.aside import Aside
from steno.job.domain import JobNotFound
from steno.job.settings import Settings
from steno.job.store import JobLocked, Store
from steno.platform.database import AWAY
from steno.platform.outage import OutageGuard

log = logging.getLogger(__name__)

BATCH = 100


class Sweeper:
    """Finds jobs and tasks in the store, and does to each what is due."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._retention = timedelta(hours=settings.job_retention_hours)
        self._outages = OutageGuard(settings.task_lease_seconds, settings.job_sweep_seconds)
        self._leases: Aside[UUID] = Aside("expire_leases")
        self._unjoined: Aside[UUID] = Aside("join")
        self._late: Aside[UUID] = Aside("end_late")
        self._old: Aside[UUID] = Aside("delete_old")

    async def expire_leases(self) -> None:
        """Takes tasks back from workers that fell silent; begins when workers can renew leases."""
        while leases := await self._past_leases():
            expired = 0
            for task_id, attempt in leases:
                with self._leases.tried(task_id, JobLocked):
                    expired += await self._store.expire(task_id, attempt)
                    self._outages.answered()
            if expired:
                log.warning("%d leases expired", expired, extra={"action": "expire_leases"})

    async def _past_leases(self) -> list[tuple[UUID, int]]:
        """Leases past their time, if their holders could have renewed them."""
        try:
            leases = await self._store.past_leases(BATCH, self._leases.keys)
        except AWAY:
            self._outages.interrupted()
            raise
        return leases if self._outages.answered() else []

    async def join(self) -> None:
        """Joins slices that were too many to be joined with the one that came last."""
        while unjoined := await self._store.unjoined_jobs(BATCH, self._unjoined.keys):
            for job_id in unjoined:
                with self._unjoined.tried(job_id, JobLocked), suppress(JobNotFound):
                    await self._store.join(job_id)

    async def end_late(self) -> None:
        """Fails jobs that have not ended by their deadline."""
        while late := await self._store.late(BATCH, self._late.keys):
            ended = 0
            for job_id in late:
                # Some are deleted meanwhile.
                with self._late.tried(job_id, JobLocked), suppress(JobNotFound):
                    ended += await self._store.end_late(job_id)
            if ended:
                log.warning("%d jobs missed their deadline", ended, extra={"action": "end_late"})

    async def delete_old(self) -> None:
        """Deletes jobs that ended longer ago than they are kept."""
        while self._retention and (
            old := await self._store.old(self._retention, BATCH, self._old.keys)
        ):
            deleted = 0
            for job_id in old:
                # Another replica may be faster.
                with self._old.tried(job_id, JobLocked), suppress(JobNotFound):
                    await self._store.delete(job_id, wait=False)
                    deleted += 1
            if deleted:
                log.info("%d old jobs deleted", deleted, extra={"action": "delete_old"})
