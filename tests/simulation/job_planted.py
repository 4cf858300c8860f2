"""Bugs of the job service, and what each breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from planting import Edit
from simulation import job_promises, job_statements, planted, promises
from simulation.database import Row, Transaction
from simulation.planted import Bug
from steno.job import statements
from steno.job.dispatch import Dispatcher
from steno.job.domain import Job, Task
from steno.job.reconcile import Reconciler
from steno.job.relay import Relay
from steno.job.store import Store
from steno.job.sweep import Sweeper
from steno.job.watch import Watchers
from steno.platform.subscriber import Subscriber

Statement = partial(planted.Statement, job_statements.STATEMENTS)


def _read_without_lock(tx: Transaction, p: Mapping[str, Any]) -> Sequence[Row]:
    return [{**job, "now": tx.clock} for job in job_statements.get_job(tx, p)]


def _read_of_tasks_without_lock(tx: Transaction, p: Mapping[str, Any]) -> Sequence[Row]:
    job_ids = {task["job_id"] for task in job_statements.get_tasks(tx, p)}
    return [job for job_id in sorted(job_ids) for job in _read_without_lock(tx, {"job_id": job_id})]


def _events_from_the_last_seen(tx: Transaction, p: Mapping[str, Any]) -> Sequence[Row]:
    return job_statements.events_after(tx, {**p, "revision": max(0, p["revision"] - 1)})


BUGS = (
    Bug(
        "complete does not check the attempt",
        (Edit(Store, "complete", {"check_lease(attempt, ": "check_lease(task.attempt, "}),),
        (job_promises.a_result_is_of_the_last_lease, job_promises.a_stale_lease_changes_nothing),
    ),
    Bug(
        "renew does not check the attempt",
        (Edit(Store, "renew", {"check_lease(attempt, ": "check_lease(task.attempt, "}),),
        (job_promises.a_stale_lease_changes_nothing,),
    ),
    Bug(
        "fail does not check the attempt",
        (Edit(Store, "fail", {"check_lease(attempt, ": "check_lease(task.attempt, "}),),
        (job_promises.a_stale_lease_changes_nothing,),
    ),
    Bug(
        "a lease is given to whoever asks",
        (
            Edit(
                Task,
                "leased",
                {"request_id is None or (worker_id, request_id) != (": "None in ("},
            ),
        ),
        (job_promises.one_lease_at_a_time,),
    ),
    Bug(
        "the job is not locked when workers change its tasks",
        (Statement(statements.LOCK_FREE_JOBS_OF_TASKS, _read_of_tasks_without_lock),),
        (job_promises.only_documented_errors, promises.nothing_fails_in_the_background),
    ),
    Bug(
        "the job is not locked when it is cancelled or deleted",
        (Statement(statements.LOCK_JOB, _read_without_lock),),
        (job_promises.only_documented_errors, job_promises.what_has_ended_has_no_work_left),
    ),
    Bug(
        "the job is not locked by the loops",
        (Statement(statements.LOCK_JOB_IF_FREE, _read_without_lock),),
        (job_promises.only_documented_errors, promises.nothing_fails_in_the_background),
    ),
    Bug(
        "events are written in a transaction of their own",
        (
            Edit(
                Store,
                "_apply_group",
                {
                    "        await tx.flush()\n": (
                        "        events, tx._events = tx._events, []\n"
                        "        await tx.flush()\n"
                        "    async with self._pool.transaction() as db:\n"
                        "        beside = Writer(db, self._lease)\n"
                        "        beside._events = events\n"
                        "        await beside.flush()\n"
                    )
                },
            ),
        ),
        (job_promises.a_job_and_its_log_change_together,),
    ),
    Bug(
        "a request_id is remembered in a transaction of its own",
        (
            Edit(
                Store,
                "_insert_jobs",
                {
                    "await self._made_before(tx, wanted, ids)": (
                        "{job_id for job_id, each in zip(ids, wanted) if each.request is not None"
                        " and await self._find(db, each.request) is not None}"
                    )
                },
            ),
            Edit(
                Store,
                "_create_group",
                {
                    "self._report(created)": (
                        "self._report(created)\n"
                        "    made = [\n"
                        "        (wanted[place], job.job_id)\n"
                        "        for place, job in answers.items() if isinstance(job, Job)\n"
                        "    ]\n"
                        "    async with self._pool.transaction() as db:\n"
                        "        await self._made_before(Writer(db, self._lease), *zip(*made))"
                    )
                },
            ),
        ),
        (job_promises.a_request_id_has_one_effect,),
    ),
    Bug(
        "the relay marks before it publishes",
        (
            Edit(
                Relay,
                "relay",
                {
                    "await asyncio.gather(*map(self._send, events), return_exceptions=True)": (
                        "[None] * len(events)"
                    ),
                    "    self._aside.all_failed(": (
                        "    await asyncio.gather("
                        "*map(self._send, events), return_exceptions=True)\n"
                        "        self._aside.all_failed("
                    ),
                },
            ),
        ),
        (promises.each_event_reaches_nats,),
    ),
    Bug(
        "watchers are told what comes, whatever its number",
        (Edit(Watchers, "_follow", {"if event.revision == seen + 1:": "if True:"}),),
        (job_promises.watchers_see_each_revision_once,),
    ),
    Bug(
        "watchers pass over holes",
        (
            Edit(
                Watchers,
                "_follow",
                {"if event.revision == seen + 1:": "if event.revision > seen:"},
            ),
        ),
        (job_promises.watchers_see_each_revision_once,),
    ),
    Bug(
        "a watcher that comes back sees its last event again",
        (Statement(statements.EVENTS_AFTER, _events_from_the_last_seen),),
        (job_promises.watchers_see_each_revision_once,),
    ),
    Bug(
        "a lease is expired without a second look",
        (
            Edit(
                Store,
                "expire",
                {
                    "task.attempt == attempt and until is not None and until < change.now": (
                        "until is not None"
                    )
                },
            ),
        ),
        (job_promises.nobody_loses_a_lease_that_is_kept,),
    ),
    Bug(
        "a renewal does not keep the lease",
        (
            Edit(
                Store,
                "renew",
                {
                    "self._advance(change, task, task.advanced(sample_count))": (
                        "task.advanced(sample_count)"
                    )
                },
            ),
        ),
        (job_promises.nobody_loses_a_lease_that_is_kept,),
    ),
    Bug(
        "a cancelled job leaves its tasks",
        (
            Edit(
                Store,
                "cancel",
                {"await change.tx.execute(CANCEL_TASKS, job_id=job_id)": "pass"},
            ),
        ),
        (job_promises.what_has_ended_has_no_work_left,),
    ),
    Bug(
        "tasks are not released once the language is known",
        (Edit(Store, "_release", {"await change.tx.execute(": "(lambda *_, **__: None)("}),),
        (job_promises.every_accepted_job_ends, promises.everybody_is_answered),
    ),
    Bug(
        "a result that is told again is a failure",
        (Edit(Store, "complete", {"if task.state is TaskState.DONE:": "if False:"}),),
        (job_promises.only_documented_errors,),
    ),
    Bug(
        "each message of a task has the same id",
        (Edit(Dispatcher, "_send", {"{task.dispatch_count + 1}": "1"}),),
        (job_promises.every_accepted_job_ends, promises.everybody_is_answered),
    ),
    Bug(
        "messages that NATS has lost are not missed",
        (
            Edit(
                Reconciler,
                "_check_message",
                {"if not await self._has(task_id, sequence):": "if False:"},
            ),
        ),
        (job_promises.every_accepted_job_ends, promises.everybody_is_answered),
    ),
    Bug(
        "leases that are past their time are left",
        (Edit(Sweeper, "expire_leases", {"while leases :=": "while leases := None and"}),),
        (job_promises.every_accepted_job_ends, promises.everybody_is_answered),
    ),
    Bug(
        "what was too much to be joined at once is left",
        (Edit(Sweeper, "join", {"while unjoined :=": "while unjoined := None and"}),),
        (job_promises.every_accepted_job_ends, promises.everybody_is_answered),
    ),
    Bug(
        "a replica that starts takes leases at once",
        (
            Edit(
                Sweeper,
                "_past_leases",
                {"return leases if self._outages.answered() else []": "return leases"},
            ),
        ),
        (job_promises.workers_are_heard_before_they_are_missed,),
    ),
    Bug(
        "watchers of a job that was deleted are not told",
        (Edit(Subscriber, "update", {"state is None": "False"}),),
        (promises.everybody_is_answered,),
    ),
    Bug(
        "audio of which nothing was heard is not asked for",
        (
            Edit(
                Reconciler,
                "poll_audio",
                {"await _each(jobs, self._check_job)": "pass"},
            ),
        ),
        (job_promises.every_accepted_job_ends, promises.everybody_is_answered),
    ),
    Bug(
        "a job succeeds before its recording is whole",
        (
            Edit(
                Job,
                "settled",
                {"self.audio_state is not AudioState.READY or ": ""},
            ),
        ),
        (job_promises.only_documented_errors, promises.nothing_fails_in_the_background),
    ),
    Bug(
        "a slice that fails is left out though no gaps are allowed",
        (Edit(Store, "_give_back", {"change.job.allow_gaps and": "True and"}),),
        (job_promises.no_hopeless_job_succeeds,),
    ),
    Bug(
        "a lost worker counts as a failure of the slice",
        (
            Edit(
                Task,
                "given_back",
                {"(self.alone and failure is Failure.RETRYABLE)": "1"},
            ),
        ),
        (job_promises.no_job_fails_for_nothing,),
    ),
    Bug(
        "slices are joined over one that is not done",
        (
            Edit(Store, "_ended", {"if task.slice.index == change.job.joined_count:": "if True:"}),
            Edit(
                Store,
                "_join",
                {"if piece.index != change.job.joined_count:": "if False:"},
            ),
        ),
        (job_promises.segments_are_told_once_and_in_order,),
    ),
    Bug(
        "slices that a job knows are taken in again",
        (
            Edit(
                Job,
                "new_slices",
                {"piece.index >= self.task_count": "piece.index >= self.joined_count"},
            ),
        ),
        (job_promises.only_documented_errors, promises.nothing_fails_in_the_background),
    ),
)
