"""Sends tasks to the work queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from steno.job.aside import Aside
from steno.job.domain import Priority
from steno.job.outbox import DueTask, Outbox
from steno.platform.messaging import Messaging, tasks_subject
from steno.platform.telemetry import received_trace, tracer
from steno.v1.events_pb2 import TaskMessage

BATCH = 100


class Dispatcher:
    """Gives each task that may go to a worker a message.

    A message says only that there may be something to do: the lease decides. So it does no harm
    that two replicas send one at the same time, or that one is sent and not noted.
    """

    def __init__(self, outbox: Outbox, messaging: Messaging) -> None:
        self._outbox = outbox
        self._messaging = messaging
        self._aside: Aside[UUID] = Aside("dispatch")

    async def dispatch(self) -> None:
        """Sends what is due; what can't be sent does not keep the rest from it.

        Raises:
            Unavailable: NATS is away; the tasks stay due.
        """
        await self._messaging.check()
        found = BATCH
        while found == BATCH:
            due = await self._outbox.due_tasks(BATCH, aside=self._aside.keys)
            found = len(due)
            if due:
                await self._send_all(due)

    async def _send_all(self, due: Sequence[DueTask]) -> None:
        ends = await asyncio.gather(*map(self._send, due), return_exceptions=True)
        sent, sequences, failed = [], [], {}
        for task, end in zip(due, ends, strict=True):
            if isinstance(end, BaseException):
                failed[task.task_id] = end
            else:
                sent.append(task)
                sequences.append(end)
        if sent:
            await self._outbox.dispatched(sent, sequences)
        self._aside.all_failed(failed, beside_others=bool(sent))

    async def _send(self, task: DueTask) -> int:
        # The worker's spans belong to the call that made the job.
        with tracer.start_as_current_span("dispatch", context=received_trace(task.trace)):
            return await self._messaging.publish(
                tasks_subject(task.model, Priority(task.priority).name.lower()),
                TaskMessage(task_id=str(task.task_id), job_id=str(task.job_id)),
                message_id=f"{task.task_id}.{task.dispatch_count + 1}",
            )
