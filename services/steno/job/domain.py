"""Jobs and tasks: what they are, how they may change, what can be wrong with them.

A job is the transcription of one audio; it has a task for each of its slices. Everything here is
a value: a change answers a new one. The store saves it, and writes into the job's event log what
`events_between` finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import ClassVar
from uuid import UUID

from steno.transcript import Coverage, Options, Segment, Span

PROGRESS_STEP = 0.01
"""Least advance of the fraction that is worth a row in the event log."""

PROGRESS_LIMIT = 0.999
"""Most that a job shows before it has succeeded."""

TRIES_BESIDE_OTHERS = 2
"""Tries of a slice that may come to nothing before it is tried with nothing beside it."""

FIRST_PAUSE = timedelta(seconds=2)
"""Before a slice is tried alone for the first time; then twice as long with each try."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """The state is final."""
        return self not in JOB_MOVES


class TaskState(StrEnum):
    """Where a task stands."""

    PENDING = "PENDING"
    LEASED = "LEASED"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class AudioState(StrEnum):
    """Where the audio of a job stands, as the upload service says."""

    PREPARING = "PREPARING"
    READY = "READY"
    REJECTED = "REJECTED"


class Failure(StrEnum):
    """How a worker lost or gave back a task."""

    RETRYABLE = "RETRYABLE"
    """The work failed. Counted if nothing ran beside it."""
    EXPIRED = "EXPIRED"
    """The worker fell silent. Nobody can tell a slice that kills from a node that dies."""
    PERMANENT = "PERMANENT"
    """No retry can help."""
    HANDED_BACK = "HANDED_BACK"
    """The worker stops; nothing is wrong with the task."""
    UNREADABLE = "UNREADABLE"
    """The slice can't be read from the object store, which answers. That says nothing of it."""


class Priority(IntEnum):
    """Which jobs go first: the smaller number. The numbers are those of the contract."""

    HIGH = 1
    NORMAL = 2
    LOW = 3


JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
}
"""The only moves of a job; a state that is no key is final. QUEUED goes straight to SUCCEEDED when
there is nothing to do: no slice at all, or a retry of which all was done."""

TASK_MOVES: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset({TaskState.LEASED, TaskState.CANCELLED}),
    TaskState.LEASED: frozenset(
        {TaskState.PENDING, TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED}
    ),
}
"""The only moves of a task; a state that is no key is final. The database refuses all others."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of the recording, in samples at 16 kHz from its start.

    What is cut out of speech has a second object, with the context around it.
    """

    index: int
    start_sample: int
    sample_count: int
    speech_sample_count: int
    object_key: str
    left_context_sample_count: int = 0
    right_context_sample_count: int = 0
    context_object_key: str = ""
    gaps: tuple[Span, ...] = ()
    """Stretches of it for which no audio ever came."""


@dataclass(frozen=True, slots=True)
class Audio:
    """What the upload service knows of an audio, as of one moment.

    `slices` are those from the index on that was asked for; once READY, all of them.
    """

    audio_id: UUID
    filename: str
    state: AudioState
    truncated: bool
    slices: tuple[Slice, ...]
    rejection_reason: str = ""
    rejection_message: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class RequestId:
    """What makes a repeated call the same call.

    Attributes:
        tenant: who calls.
        method: name of the RPC.
        request_id: made by the caller.
        body_sha256: digest of the rest of the request.
    """

    tenant: str
    method: str
    request_id: UUID
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is asked for. Without a display name it is called as its audio is.

    A retry knows the language already, if the job before found it.
    """

    audio_id: UUID
    config: Options
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    retry_of_job_id: UUID | None = None
    language_code: str = ""
    priority: Priority = Priority.NORMAL
    not_before: datetime | None = None
    deadline: datetime | None = None
    allow_gaps: bool = False
    tenant: str = "default"

    def made(self, job_id: UUID, filename: str, clock: int, now: datetime) -> Job:
        """The job, of which no slice is known yet; its turn comes at the clock."""
        return Job(
            job_id=job_id,
            audio_id=self.audio_id,
            display_name=self.display_name or filename,
            labels=self.labels,
            config=self.config,
            create_time=now,
            update_time=now,
            language_code=self.config.language_code or self.language_code,
            retry_of_job_id=self.retry_of_job_id,
            priority=self.priority,
            not_before=self.not_before,
            turn=clock,
            deadline=self.deadline,
            allow_gaps=self.allow_gaps,
            tenant=self.tenant,
        )


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs of a tenant to list. All that is set must match."""

    states: frozenset[JobState] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time_from: datetime | None = None
    create_time_to: datetime | None = None
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class JobError:
    """What went wrong: a machine-readable reason, and one sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """The transcription of one audio with one config.

    Attributes:
        progress: share of the audio that is transcribed, as last written to the event log. While
            the audio is being prepared nobody knows how long it is, and the share stays 0.
        sample_count: length of the slices that are known.
        transcribed_sample_count: how much of it is transcribed.
        task_count: number of slices that are known.
        joined_count: number of slices from the start on, without a hole, that are transcribed or
            left out.
        segment_count: number of segments in those.
        speech_sample_count: how much of those is speech that gave text.
        silence_sample_count: how much of those is silence.
        gap_sample_count: how much of those is speech that gave no text.
        language_code: asked for or detected; empty until it is known.
        revision: of the last event.
        turn: where its last slice ends on the queue's clock, in samples. See `turns`.
        deadline: if it has not ended by then, it fails.
        allow_gaps: slices that can't be transcribed are left out.
        failed_count: number of slices that were left out.
        tenant: on whose account it runs.
    """

    job_id: UUID
    audio_id: UUID
    display_name: str
    labels: Mapping[str, str]
    config: Options
    create_time: datetime
    update_time: datetime
    state: JobState = JobState.QUEUED
    audio_state: AudioState = AudioState.PREPARING
    audio_truncated: bool = False
    language_code: str = ""
    revision: int = 0
    progress: float = 0.0
    sample_count: int = 0
    transcribed_sample_count: int = 0
    task_count: int = 0
    joined_count: int = 0
    segment_count: int = 0
    speech_sample_count: int = 0
    silence_sample_count: int = 0
    gap_sample_count: int = 0
    error: JobError | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    retry_of_job_id: UUID | None = None
    priority: Priority = Priority.NORMAL
    not_before: datetime | None = None
    turn: int = 0
    deadline: datetime | None = None
    allow_gaps: bool = False
    failed_count: int = 0
    tenant: str = "default"

    @property
    def has_one_task(self) -> bool:
        """There is one slice, and there will be no other."""
        return self.audio_state is AudioState.READY and self.task_count == 1

    @property
    def releases_all(self) -> bool:
        """All tasks may go to workers at once.

        Otherwise the language is still to be found, and only the first slice that is not done may
        go: what it finds is used for the rest.
        """
        return bool(self.language_code) or self.config.multilingual

    def releases(self, piece: Slice) -> bool:
        """The task of a new slice may go to workers at once."""
        return self.releases_all or piece.index == self.joined_count

    def prepared(self, audio: Audio) -> Job:
        """Takes in slices that were cut since, and whether these are all.

        READY is final; an older snapshot that says PREPARING is ignored.
        """
        if self.audio_state is AudioState.READY:
            return self
        new = self.new_slices(audio)
        return replace(
            self,
            audio_state=audio.state,
            audio_truncated=audio.truncated,
            task_count=self.task_count + len(new),
            sample_count=self.sample_count + sum(piece.sample_count for piece in new),
        )._measured()

    def new_slices(self, audio: Audio) -> list[Slice]:
        """The slices that the job does not know yet, in order."""
        return [piece for piece in audio.slices if piece.index >= self.task_count]

    def started(self, now: datetime) -> Job:
        """A worker has taken a slice; the first one starts the job."""
        if self.state is not JobState.QUEUED:
            return self
        return replace(self._moved(JobState.RUNNING), start_time=now)

    def detected(self, language_code: str) -> Job:
        """Keeps the first language that a worker reports."""
        return replace(self, language_code=self.language_code or language_code)

    def transcribed(self, sample_count: int) -> Job:
        """More is transcribed."""
        if not sample_count:
            return self
        total = self.transcribed_sample_count + sample_count
        return replace(self, transcribed_sample_count=total)._measured()

    def joined(self, segment_count: int, coverage: Coverage) -> Job:
        """The next slice from the start on is complete, with its segments."""
        return replace(
            self,
            joined_count=self.joined_count + 1,
            segment_count=self.segment_count + segment_count,
            speech_sample_count=self.speech_sample_count + coverage.speech,
            silence_sample_count=self.silence_sample_count + coverage.silence,
            gap_sample_count=self.gap_sample_count + sum(g.length for g in coverage.gaps),
        )

    def left_out(self, error: JobError) -> Job:
        """A slice could not be transcribed, and the job goes on. It keeps the first reason."""
        return replace(self, failed_count=self.failed_count + 1, error=self.error or error)

    def settled(self, now: datetime) -> Job:
        """Ends when nothing is left to do; succeeds unless every slice had to be left out."""
        if self.audio_state is not AudioState.READY or self.joined_count < self.task_count:
            return self
        if self.error is not None and self.failed_count == self.task_count:
            return self.failed(self.error, now)
        return replace(
            self._moved(JobState.SUCCEEDED),
            progress=1.0,
            transcribed_sample_count=self.sample_count,
            end_time=now,
        )

    def cancelled(self, now: datetime) -> Job:
        """Ends the job for its owner. A second time changes nothing.

        Raises:
            JobEnded: it has succeeded or failed already.
        """
        if self.state is JobState.CANCELLED:
            return self
        if self.state.ended:
            raise JobEnded(self.job_id, self.state)
        return replace(self._moved(JobState.CANCELLED), end_time=now)

    def failed(self, error: JobError, now: datetime) -> Job:
        """Ends the job without a whole transcript."""
        return replace(self._moved(JobState.FAILED), error=error, end_time=now)

    def check_deletable(self) -> None:
        """Accepts a job that has ended.

        Raises:
            JobNotEnded: it has not.
        """
        if not self.state.ended:
            raise JobNotEnded(self.job_id, self.state)

    def check_retryable(self) -> None:
        """Accepts a job that failed, was cancelled or has gaps, and whose audio can be used.

        Raises:
            JobNotRetryable: the job, or its audio, is not so.
        """
        has_gaps = self.state is JobState.SUCCEEDED and self.failed_count
        if not has_gaps and self.state not in (JobState.FAILED, JobState.CANCELLED):
            raise JobNotRetryable(self.job_id, f"it is {self.state}")
        if self.error is not None and self.error.reason in (AudioRejected.reason, AUDIO_DELETED):
            raise JobNotRetryable(self.job_id, self.error.message)

    def as_new(self) -> NewJob:
        """The job to make in order to retry this one."""
        return NewJob(
            audio_id=self.audio_id,
            config=self.config,
            display_name=self.display_name,
            labels=self.labels,
            retry_of_job_id=self.job_id,
            language_code=self.language_code,
            priority=self.priority,
            allow_gaps=self.allow_gaps,
            tenant=self.tenant,
        )

    def check_readable(self, allow_partial: bool) -> None:
        """Accepts a job whose transcript is whole, or any if a part will do.

        Raises:
            JobNotEnded: it still runs.
            JobNotSucceeded: it failed or was cancelled.
        """
        if allow_partial or self.state is JobState.SUCCEEDED:
            return
        self.check_deletable()
        raise JobNotSucceeded(self.job_id, self.state)

    def _moved(self, state: JobState) -> Job:
        if state not in JOB_MOVES.get(self.state, ()):
            raise IllegalMove(f"job {self.job_id}: {self.state} -> {state}")
        return replace(self, state=state)

    def _measured(self) -> Job:
        """Advances the progress if it has moved by a step. It never goes back."""
        if self.audio_state is not AudioState.READY or not self.sample_count:
            return self
        share = min(self.transcribed_sample_count / self.sample_count, PROGRESS_LIMIT)
        return replace(self, progress=share) if share >= self.progress + PROGRESS_STEP else self


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How long a slice is tried.

    Attributes:
        max_failures: of a slice that ran alone; so many end it.
        longest_pause: before the next try.
    """

    max_failures: int
    longest_pause: timedelta


@dataclass(frozen=True, slots=True)
class Task:
    """The transcription of one slice.

    Attributes:
        attempt: the fencing token. It counts the leases, and only the holder of the last one
            changes anything.
        failure_count: tries that came to nothing, whoever was to blame.
        failures: those of them that end the job if they are many: the worker said that the slice
            failed, and nothing ran beside it.
        next_attempt_time: when it may be leased again.
        lease_request_id: the call that took the last lease.
        released: it may go to workers.
        last_error: what the last of those tries was.
    """

    task_id: UUID
    job_id: UUID
    slice: Slice
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    failure_count: int = 0
    failures: int = 0
    next_attempt_time: datetime | None = None
    lease_request_id: UUID | None = None
    released: bool = False
    transcribed_sample_count: int = 0
    worker_id: str | None = None
    create_time: datetime | None = None
    lease_expire_time: datetime | None = None
    last_error: str = ""

    @property
    def alone(self) -> bool:
        """Nothing else is to be worked on beside it."""
        return self.failure_count >= TRIES_BESIDE_OTHERS

    def leased(self, worker_id: str, now: datetime, request_id: UUID | None = None) -> Task:
        """Gives the task to a worker. The call that has taken the lease gets it again.

        Raises:
            TaskLeased: another worker holds it.
            TaskNotPending: there is nothing to do, or nothing yet.
        """
        if self.state is TaskState.LEASED:
            # An older version leaves the request_id of an older lease, but not its worker.
            if request_id is None or (worker_id, request_id) != (
                self.worker_id,
                self.lease_request_id,
            ):
                raise TaskLeased(self.task_id)
            return self
        if self.state is not TaskState.PENDING:
            raise TaskNotPending(self.task_id, self.state)
        if self.next_attempt_time is not None and now < self.next_attempt_time:
            raise TaskParked(self.task_id, self.next_attempt_time)
        return replace(
            self._moved(TaskState.LEASED),
            attempt=self.attempt + 1,
            worker_id=worker_id,
            lease_request_id=request_id,
            next_attempt_time=None,
        )

    def check_lease(self, attempt: int, *states: TaskState) -> None:
        """Accepts the holder of the last lease while the task is in one of the states.

        Raises:
            StaleLease: the lease has passed on, or is over.
        """
        if attempt != self.attempt or self.state not in states:
            raise StaleLease(self.task_id, attempt)

    def advanced(self, sample_count: int) -> Task:
        """That much of the slice is transcribed; less than before changes nothing."""
        within = min(sample_count, self.slice.sample_count)
        return replace(self, transcribed_sample_count=max(self.transcribed_sample_count, within))

    def completed(self) -> Task:
        """The slice is transcribed."""
        return replace(
            self._moved(TaskState.DONE), transcribed_sample_count=self.slice.sample_count
        )

    def given_back(
        self,
        failure: Failure,
        message: str,
        now: datetime,
        rules: RetryRules,
    ) -> Task:
        """The lease is over without a result: the task is PENDING again, or FAILED for good.

        Only what a worker says of the slice itself ends it: that no try can help, or, so many times
        while nothing ran beside it, that it failed. A worker that falls silent may have lost its
        node: then the slice only waits, longer each time, until the job is cancelled or has come to
        its deadline.
        """
        if failure is Failure.HANDED_BACK:
            return self._moved(TaskState.PENDING)
        failure_count = self.failure_count + 1
        failures = self.failures + (self.alone and failure is Failure.RETRYABLE)
        tries_alone = failure_count - TRIES_BESIDE_OTHERS
        hopeless = failure is Failure.PERMANENT or failures >= rules.max_failures
        pause = FIRST_PAUSE * 2 ** min(tries_alone, 20) if tries_alone >= 0 else timedelta()
        return replace(
            self._moved(TaskState.FAILED if hopeless else TaskState.PENDING),
            failure_count=failure_count,
            failures=failures,
            next_attempt_time=None if hopeless else now + min(pause, rules.longest_pause),
            last_error=message or self.last_error,
        )

    def _moved(self, state: TaskState) -> Task:
        if state not in TASK_MOVES.get(self.state, ()):
            raise IllegalMove(f"task {self.task_id}: {self.state} -> {state}")
        return replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A lease that began or ended.

    Attributes:
        task: what it has become.
        time: when.
        failure: why the lease ended without a result, if it did.
    """

    task: Task
    time: datetime
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class SegmentsAdded:
    """Segments have become final."""

    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The job's state changed."""

    job: Job


@dataclass(frozen=True, slots=True)
class Progressed:
    """More is transcribed, or the length of the audio is known now."""

    job: Job


Change = SegmentsAdded | StateChanged | Progressed


def events_between(
    before: Job | None, after: Job, added: Sequence[SegmentsAdded] = ()
) -> tuple[Job, list[Change]]:
    """Finds what happened between two versions of a job, and gives it its new revision.

    Returns:
        The job as of its last event, and the events in the order in which watchers learn of them.
        Segments come first, so that whoever has seen the end has seen all of them.
    """
    moved = before is None or before.state is not after.state
    progressed = before is not None and (before.progress, before.audio_state) != (
        after.progress,
        after.audio_state,
    )
    after = replace(after, revision=after.revision + len(added) + (moved or progressed))
    changes: list[Change] = [*added]
    if moved:
        changes.append(StateChanged(after))
    elif progressed:
        changes.append(Progressed(after))
    return after, changes


@dataclass(frozen=True, slots=True)
class Retried:
    """What of a job is tried again.

    Attributes:
        slice_count: slices of which a try came to nothing.
        slice_index: the one that was tried most often.
        failure_count: how often it came to nothing.
        last_error: what the last of those tries was.
        next_attempt_time: from when on it is tried again; None while it is.
    """

    slice_count: int
    slice_index: int
    failure_count: int
    last_error: str
    next_attempt_time: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job stands in the queue.

    `queue_position` counts the jobs ahead while it is QUEUED; `remaining` is None while nothing
    is measured.
    """

    job: Job
    queue_position: int | None = None
    remaining: timedelta | None = None
    retried: Retried | None = None


AUDIO_DELETED = "AUDIO_DELETED"
SLICE_FAILED = "SLICE_FAILED"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


class JobServiceError(Exception):
    """Root of what can be wrong here. `reason` is for machines, the text for people."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata


class IllegalMove(JobServiceError):
    """A change that the state machines do not know: a bug, never a caller's fault."""

    reason = "ILLEGAL_MOVE"


class JobNotFound(JobServiceError):
    """No job has this id."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"no job {job_id}", job_id=str(job_id))


class JobEnded(JobServiceError):
    """The job has succeeded or failed already."""

    reason = "JOB_ENDED"

    def __init__(self, job_id: UUID, state: JobState) -> None:
        super().__init__(f"job {job_id} has ended: {state}", job_id=str(job_id), state=state.value)


class JobNotEnded(JobServiceError):
    """The job still waits or runs."""

    reason = "JOB_NOT_ENDED"

    def __init__(self, job_id: UUID, state: JobState) -> None:
        super().__init__(f"job {job_id} is {state}", job_id=str(job_id), state=state.value)


class JobNotSucceeded(JobServiceError):
    """The job failed or was cancelled, so its transcript is not whole."""

    reason = "JOB_NOT_SUCCEEDED"

    def __init__(self, job_id: UUID, state: JobState) -> None:
        super().__init__(
            f"job {job_id} is {state}; only a part is transcribed",
            job_id=str(job_id),
            state=state.value,
        )


class JobNotRetryable(JobServiceError):
    """The job did not fail, or its audio is gone."""

    reason = "JOB_NOT_RETRYABLE"

    def __init__(self, job_id: UUID, why: str) -> None:
        super().__init__(f"job {job_id} can't be retried: {why}", job_id=str(job_id))


class RequestIdReused(JobServiceError):
    """The request_id was used with another body."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: UUID) -> None:
        super().__init__(
            f"request_id {request_id} was used with another body", request_id=str(request_id)
        )


class AudioNotFound(JobServiceError):
    """No audio has this id."""

    reason = "AUDIO_NOT_FOUND"

    def __init__(self, audio_id: UUID) -> None:
        super().__init__(f"no audio {audio_id}", audio_id=str(audio_id))


class AudioRejected(JobServiceError):
    """The audio can't be decoded."""

    reason = "AUDIO_REJECTED"

    def __init__(self, audio: Audio) -> None:
        super().__init__(
            f"audio {audio.audio_id} was rejected: {audio.rejection_message}",
            audio_id=str(audio.audio_id),
            rejection_reason=audio.rejection_reason,
        )


class TaskNotFound(JobServiceError):
    """No task has this id."""

    reason = "TASK_NOT_FOUND"

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"no task {task_id}", task_id=str(task_id))


class TaskNotPending(JobServiceError):
    """The task is done, failed or cancelled."""

    reason = "TASK_NOT_PENDING"

    def __init__(self, task_id: UUID, state: TaskState) -> None:
        super().__init__(f"task {task_id} is {state}", task_id=str(task_id), state=state.value)


class TaskParked(TaskNotPending):
    """The task is not to be tried again yet. Its next message comes when it is."""

    def __init__(self, task_id: UUID, next_attempt_time: datetime) -> None:
        JobServiceError.__init__(
            self,
            f"task {task_id} is not tried before {next_attempt_time:%Y-%m-%d %H:%M:%S %Z}",
            task_id=str(task_id),
            state=TaskState.PENDING.value,
        )


class TaskLeased(JobServiceError):
    """Another worker holds the task."""

    reason = "TASK_LEASED"

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"task {task_id} is leased", task_id=str(task_id))


class StaleLease(JobServiceError):
    """The lease has passed to another worker, or is over."""

    reason = "STALE_LEASE"

    def __init__(self, task_id: UUID, attempt: int) -> None:
        super().__init__(f"lease {attempt} of task {task_id} is over", task_id=str(task_id))
