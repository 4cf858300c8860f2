"""What the job service promises, held against what a schedule has left.

Nothing here knows how the service does it: promises are read from the contract, and are held
against what callers and workers were told, and what the database has committed, in the order of
the commits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from simulation.audio import Recording
from simulation.database import Row
from simulation.evidence import Evidence, Promise
from simulation.history import Call, Outcome
from simulation.job_service import LEASE
from simulation.promises import (
    each_event_reaches_nats,
    everybody_is_answered,
    nothing_fails_in_the_background,
)
from steno.job.domain import (
    AudioNotFound,
    AudioRejected,
    JobEnded,
    JobNotEnded,
    JobNotFound,
    JobNotRetryable,
    JobNotSucceeded,
    StaleLease,
    TaskLeased,
    TaskNotFound,
    TaskNotPending,
)
from steno.job.messages import ends
from steno.platform.errors import InvalidArgument
from steno.v1 import job_pb2, transcript_pb2

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass
class JobEvidence(Evidence):
    """What a schedule of the job service has left; `recordings` tells what is said in them."""

    recordings: dict[UUID, Recording]

    @cached_property
    def jobs(self) -> dict[UUID, Row]:
        """Each job there ever was, as it was last."""
        return {change.key: change.new for change in self.changes["jobs"] if change.new is not None}

    @cached_property
    def deleted(self) -> set[UUID]:
        """Jobs that are gone."""
        return {change.key for change in self.changes["jobs"] if change.new is None}

    @cached_property
    def log(self) -> dict[tuple[UUID, int], bytes]:
        """The events there ever were, by job and revision."""
        return {
            change.key: change.new["payload"]
            for change in self.changes["events"]
            if change.new is not None
        }

    def recording_of(self, job_id: UUID) -> Recording:
        return self.recordings[self.jobs[job_id]["audio_id"]]

    def said(self, job_id: UUID) -> list[str]:
        """What a job's transcript is to say."""
        return self.recording_of(job_id).transcript(allow_gaps=self.jobs[job_id]["allow_gaps"])

    def attempts_at(self, task_id: UUID, begin: float, end: float) -> set[int]:
        """The attempts that a task was at between two moments."""
        found: set[int] = set()
        before = 0
        for change in self.changes["tasks"]:
            if change.key != task_id or change.new is None:
                continue
            if change.time < begin:
                before = change.new["attempt"]
            elif change.time <= end:
                found.add(change.new["attempt"])
        return found | {before}


def every_accepted_job_ends(seen: JobEvidence) -> Iterator[str]:
    """An OK of CreateJob is a promise, whatever is killed meanwhile."""
    for job_id, job in seen.jobs.items():
        if job["state"] not in ENDED:
            yield f"job {job_id} is {job['state']} still"


def no_job_fails_for_nothing(seen: JobEvidence) -> Iterator[str]:
    """A job fails for what its recording holds, or because that is gone."""
    for job_id, job in seen.jobs.items():
        recording = seen.recording_of(job_id)
        if job["state"] != "FAILED":
            continue
        expected = (
            (
                job["error_reason"] == "SLICE_FAILED"
                and recording.fails(allow_gaps=job["allow_gaps"])
            )
            or (job["error_reason"] == "DEADLINE_EXCEEDED" and job["end_time"] > job["deadline"])
            or (job["error_reason"] == "AUDIO_DELETED" and recording.deleted)
            or (job["error_reason"] == "AUDIO_REJECTED" and recording.state == "REJECTED")
        )
        if not expected:
            yield f"job {job_id} failed: {job['error_reason']}: {job['error_message']}"


def no_hopeless_job_succeeds(seen: JobEvidence) -> Iterator[str]:
    """What no worker can transcribe is not passed over."""
    for job_id, job in seen.jobs.items():
        fails = seen.recording_of(job_id).fails(allow_gaps=job["allow_gaps"])
        if job["state"] == "SUCCEEDED" and fails:
            yield f"job {job_id} succeeded"


def transcripts_say_what_was_said(seen: JobEvidence) -> Iterator[str]:
    """A transcript is that of its recording: nothing more, less, twice or out of order."""
    for call in seen.history.of("transcript"):
        if call.ok:
            job_id = call.about["job_id"]
            expected = [f"{index}:{text}" for index, text in enumerate(seen.said(job_id))]
            if call.answer != expected:
                yield f"job {job_id}: {call.answer}, not {expected}"


def segments_are_told_once_and_in_order(seen: JobEvidence) -> Iterator[str]:
    """The segments in a job's log are the beginning of its transcript; all of it with SUCCEEDED."""
    told: dict[UUID, list[str]] = defaultdict(list)
    for (job_id, _), payload in sorted(seen.log.items()):
        event = job_pb2.JobEvent.FromString(payload)
        told[job_id] += [each.text for each in event.segments_added.segments]
    for job_id, job in seen.jobs.items():
        said = seen.said(job_id)
        expected = said if job["state"] == "SUCCEEDED" else said[: len(told[job_id])]
        if told[job_id] != expected:
            yield f"job {job_id}, {job['state']}: {told[job_id]}, not {expected}"


def a_result_is_of_the_last_lease(seen: JobEvidence) -> Iterator[str]:
    """Who has lost its lease writes no result."""
    for change in seen.changes["tasks"]:
        task, old = change.new, change.old
        if task is None or task["result"] is None or old is None or old["result"] is not None:
            continue
        result = transcript_pb2.SliceTranscript.FromString(task["result"])
        if result.model.revision != str(task["attempt"]):
            yield (
                f"task {task['task_id']} at attempt {task['attempt']} has the result of attempt"
                f" {result.model.revision}"
            )


def a_stale_lease_changes_nothing(seen: JobEvidence) -> Iterator[str]:
    """What is said under a lease that is over is refused."""
    for call in seen.history.of("renew", "complete", "fail"):
        if not call.ok:
            continue
        attempt, task_id = call.about["attempt"], call.about["task_id"]
        if attempt not in seen.attempts_at(task_id, call.began, call.ended):
            yield f"{call.who}: {call.kind} of task {task_id} under attempt {attempt} was OK"


def one_lease_at_a_time(seen: JobEvidence) -> Iterator[str]:
    """No two calls get the same lease, but the repeats of one."""
    holders: dict[tuple[UUID, int], str] = {}
    for call in seen.history.of("lease"):
        if call.ok:
            key = (call.about["task_id"], call.answer.attempt)
            request_id = call.about["request_id"]
            if holders.setdefault(key, request_id) != request_id:
                yield f"attempt {key[1]} of task {key[0]} was given twice"


def nobody_loses_a_lease_that_is_kept(seen: JobEvidence) -> Iterator[str]:
    """A task is taken from a worker that was silent for a whole lease, and from no other."""
    kept: dict[tuple[UUID, int], list[Call]] = defaultdict(list)
    gave_back: dict[tuple[UUID, int], list[Call]] = defaultdict(list)
    for call in seen.history.of("lease", "renew", "fail"):
        if call.kind == "lease":
            if call.ok:
                kept[call.about["task_id"], call.answer.attempt].append(call)
        elif call.kind == "fail":
            gave_back[call.about["task_id"], call.about["attempt"]].append(call)
        elif call.ok:
            kept[call.about["task_id"], call.about["attempt"]].append(call)
    for change in seen.changes["tasks"]:
        old, new = change.old, change.new
        if old is None or new is None or old["state"] != "LEASED":
            continue
        lease = (change.key, old["attempt"])
        if new["state"] not in ("PENDING", "FAILED") or any(
            call.began <= change.time for call in gave_back[lease]
        ):
            continue
        for call in kept[lease]:
            # To the microsecond: that is what the database's clock tells.
            if call.ended < change.time < call.began + LEASE - 1e-5:
                yield (
                    f"attempt {old['attempt']} of task {change.key} was kept at {call.began:.3f}"
                    f" and taken at {change.time:.3f}"
                )


def workers_are_heard_before_they_are_missed(seen: JobEvidence) -> Iterator[str]:
    """A replica takes no lease back before workers had the time of a whole one to reach it."""
    for change in seen.changes["tasks"]:
        old, new = change.old, change.new
        expired = (
            old is not None
            and new is not None
            and old["state"] == "LEASED"
            and new["last_error"].endswith("fell silent")
            and new["failure_count"] > old["failure_count"]
        )
        if expired and change.time < seen.started[change.client] + LEASE:
            yield f"{change.client} took task {change.key} at {change.time:.3f}"


def what_has_ended_has_no_work_left(seen: JobEvidence) -> Iterator[str]:
    """A job that has ended has no task that waits or runs."""
    tasks: dict[UUID, dict[UUID, str]] = defaultdict(dict)
    jobs: dict[UUID, str] = {}
    for commit in seen.database.log:
        touched: dict[UUID, None] = {}
        for (table, key), (_, row) in commit.rows.items():
            if table == "jobs":
                jobs[key] = row["state"] if row is not None else "gone"
                touched[key] = None
            elif table == "tasks" and row is not None:
                tasks[row["job_id"]][key] = row["state"]
                touched[row["job_id"]] = None
        for job_id in touched:
            if jobs.get(job_id) in ENDED:
                left = [s for s in tasks[job_id].values() if s in ("PENDING", "LEASED")]
                if left:
                    yield f"job {job_id} is {jobs[job_id]} at {commit.time:.3f} with {left}"
                    return


def a_job_and_its_log_change_together(seen: JobEvidence) -> Iterator[str]:
    """After each commit a job is as its last event says."""
    last: dict[UUID, int] = {}
    jobs: dict[UUID, int] = {}
    for commit in seen.database.log:
        touched: dict[UUID, None] = {}
        for (table, key), (_, row) in commit.rows.items():
            if row is None:
                continue
            if table == "jobs":
                jobs[key] = row["revision"]
                touched[key] = None
            elif table == "events":
                last[key[0]] = max(last.get(key[0], 0), key[1])
                touched[key[0]] = None
        for job_id in touched:
            if jobs.get(job_id) != last.get(job_id, 0):
                yield (
                    f"job {job_id} is at revision {jobs.get(job_id)}, its log at"
                    f" {last.get(job_id, 0)}"
                )
                return


def state_moves_one_way(seen: JobEvidence) -> Iterator[str]:
    """A job that has ended stays as it is; progress and revision never go back."""
    for change in seen.changes["jobs"]:
        old, new = change.old, change.new
        if old is None or new is None:
            continue
        if old["state"] in ENDED:
            yield f"job {change.key} changed after it was {old['state']}"
        if new["progress"] < old["progress"] or new["revision"] < old["revision"]:
            yield f"job {change.key} went back"
    shown: dict[tuple[str, UUID], tuple[int, float]] = {}
    for call in seen.history.of("get"):
        if call.ok:
            key = (call.who, call.about["job_id"])
            job = call.answer.job
            if key in shown and (job.revision, job.progress) < shown[key]:
                yield f"{call.who} saw job {job.job_id} go back"
            shown[key] = (job.revision, job.progress)


def watchers_see_each_revision_once(seen: JobEvidence) -> Iterator[str]:
    """A stream tells each event once, in order, as it is in the log, and ends with the last."""
    for watch in seen.history.watches:
        revision, ended = watch.after_revision, False
        for told in watch.messages:
            if not told.HasField("event"):
                continue
            revision += 1
            if told.event.revision != revision:
                yield f"{watch.who} saw {told.event.revision} where {revision} was next"
                break
            if told.event.SerializeToString() != seen.log.get((watch.of, revision)):
                yield f"{watch.who} saw another revision {revision} than the log has"
            ended = ends(told.event)
        else:
            last = max((r for job_id, r in seen.log if job_id == watch.of), default=0)
            if watch.outcome is Outcome.OK and not ended and revision < last:
                yield f"{watch.who}'s stream ended with revision {revision}"


def cancelled_jobs_stay_so(seen: JobEvidence) -> Iterator[str]:
    """After an OK of CancelJob nothing is added to the job."""
    for call in seen.history.of("cancel"):
        if not call.ok:
            continue
        job_id = call.about["job_id"]
        if seen.jobs[job_id]["state"] != "CANCELLED":
            yield f"job {job_id} is {seen.jobs[job_id]['state']}"
        for change in seen.changes["events"]:
            if change.key[0] == job_id and change.old is None and change.time > call.ended:
                yield f"job {job_id} got revision {change.key[1]} after it"


def deleted_jobs_are_not_found(seen: JobEvidence) -> Iterator[str]:
    """After an OK of DeleteJob nobody finds the job."""
    for call in seen.history.of("delete"):
        if not call.ok:
            continue
        for other in seen.history.of("get", "transcript", "cancel"):
            if (
                other.ok
                and other.about["job_id"] == call.about["job_id"]
                and other.began > call.ended
            ):
                yield f"job {call.about['job_id']} was found by {other.kind}"


def what_is_there_is_found(seen: JobEvidence) -> Iterator[str]:
    """NOT_FOUND is said of what was deleted, and of nothing else."""
    ends: list[tuple[UUID, BaseException | None]] = [
        (watch.of, watch.error) for watch in seen.history.watches
    ]
    ends += [
        (call.about["job_id"], call.error) for call in seen.history.calls if "job_id" in call.about
    ]
    for job_id, error in ends:
        if isinstance(error, JobNotFound) and job_id not in seen.deleted:
            yield f"job {job_id}: {error}"


def a_request_id_has_one_effect(seen: JobEvidence) -> Iterator[str]:
    """Calls with one request_id make one job, and are all answered with it."""
    answers: dict[UUID, set[UUID]] = defaultdict(set)
    for call in seen.history.of("create", "retry"):
        made = answers[call.about["request"].request_id]
        if call.ok:
            made.add(call.answer.job_id)
    for request_id, made in answers.items():
        # A call is forgotten with its job.
        if len(made) > 1 and not made & seen.deleted:
            yield f"request {request_id} made the jobs {sorted(made)}"
    if len(seen.jobs) > len(answers) and not seen.deleted:
        yield f"{len(answers)} calls made {len(seen.jobs)} jobs"


DOCUMENTED: dict[str, tuple[type[Exception], ...]] = {
    "create": (AudioNotFound, AudioRejected, InvalidArgument),
    "retry": (JobNotFound, JobNotRetryable),
    "get": (JobNotFound,),
    "transcript": (JobNotFound, JobNotEnded, JobNotSucceeded),
    "cancel": (JobNotFound, JobEnded),
    "delete": (JobNotFound, JobNotEnded),
    "lease": (TaskNotFound, TaskNotPending, TaskLeased),
    "renew": (StaleLease,),
    "complete": (StaleLease,),
    "fail": (StaleLease,),
}


def only_documented_errors(seen: JobEvidence) -> Iterator[str]:
    """Callers are told what the contract says; INTERNAL is always a bug."""
    for call in seen.history.calls:
        if call.outcome is Outcome.FAILED and not isinstance(call.error, DOCUMENTED[call.kind]):
            yield f"{call.kind}: {call.error!r}"
    for watch in seen.history.watches:
        if watch.outcome is Outcome.FAILED and not isinstance(watch.error, JobNotFound):
            yield f"watch: {watch.error!r}"


PROMISES: tuple[Promise, ...] = (
    every_accepted_job_ends,
    everybody_is_answered,
    each_event_reaches_nats,
    no_job_fails_for_nothing,
    no_hopeless_job_succeeds,
    transcripts_say_what_was_said,
    segments_are_told_once_and_in_order,
    a_result_is_of_the_last_lease,
    a_stale_lease_changes_nothing,
    one_lease_at_a_time,
    nobody_loses_a_lease_that_is_kept,
    workers_are_heard_before_they_are_missed,
    what_has_ended_has_no_work_left,
    a_job_and_its_log_change_together,
    state_moves_one_way,
    watchers_see_each_revision_once,
    cancelled_jobs_stay_so,
    deleted_jobs_are_not_found,
    what_is_there_is_found,
    a_request_id_has_one_effect,
    only_documented_errors,
    nothing_fails_in_the_background,
)
