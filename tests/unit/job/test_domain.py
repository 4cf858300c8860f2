"""The rules of jobs and tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import uuid4

import pytest

from steno.job.domain import (
    JOB_MOVES,
    TASK_MOVES,
    Audio,
    AudioState,
    Failure,
    IllegalMove,
    Job,
    JobEnded,
    JobError,
    JobNotEnded,
    JobNotRetryable,
    JobNotSucceeded,
    JobState,
    Progressed,
    RetryRules,
    SegmentsAdded,
    Slice,
    StaleLease,
    StateChanged,
    Task,
    TaskLeased,
    TaskNotPending,
    TaskState,
    events_between,
)
from steno.transcript import Coverage, Options, Segment, Span

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
SPOKEN = Coverage(speech=1000, silence=0, gaps=())


def a_job(state: JobState = JobState.QUEUED, **fields: object) -> Job:
    job = Job(
        job_id=uuid4(),
        audio_id=uuid4(),
        display_name="talk.mp3",
        labels={},
        config=Options(model="builtin"),
        create_time=NOW,
        update_time=NOW,
        state=state,
    )
    return replace(job, **fields)  # type: ignore[arg-type]


def a_slice(index: int = 0, sample_count: int = 1000) -> Slice:
    return Slice(index, index * sample_count, sample_count, sample_count, f"slices/{index}")


def audio(*slices: Slice, state: AudioState = AudioState.READY) -> Audio:
    return Audio(uuid4(), "talk.mp3", state, truncated=False, slices=slices)


def a_task(state: TaskState = TaskState.PENDING, **fields: object) -> Task:
    task = Task(uuid4(), uuid4(), a_slice(), state=state)
    return replace(task, **fields)  # type: ignore[arg-type]


ENDED = [state for state in JobState if state.ended]


def test_three_states_of_a_job_are_final() -> None:
    assert ENDED == [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]


MOVES: dict[JobState, Callable[[Job], Job]] = {
    JobState.RUNNING: lambda job: job.started(LATER),
    JobState.SUCCEEDED: lambda job: replace(job, audio_state=AudioState.READY).settled(LATER),
    JobState.FAILED: lambda job: job.failed(JobError("SLICE_FAILED", "no"), LATER),
    JobState.CANCELLED: lambda job: job.cancelled(LATER),
}


def test_every_state_but_the_first_is_moved_to() -> None:
    assert {JobState.QUEUED, *MOVES} == set(JobState)


@pytest.mark.parametrize(("here", "there"), list(product(JobState, MOVES)))
def test_a_job_makes_only_the_moves_there_are(here: JobState, there: JobState) -> None:
    job = a_job(here)

    if there in JOB_MOVES.get(here, ()):
        assert MOVES[there](job).state is there
    elif there is JobState.RUNNING or (here, there) == (JobState.CANCELLED, JobState.CANCELLED):
        assert MOVES[there](job) is job  # late slices start nothing; a repeat changes nothing
    else:
        with pytest.raises((IllegalMove, JobEnded)):
            MOVES[there](job)


def test_a_cancelled_job_has_an_end_time() -> None:
    assert a_job().cancelled(LATER).end_time == LATER


def test_slices_are_taken_in_once() -> None:
    first = audio(a_slice(0), state=AudioState.PREPARING)
    both = audio(a_slice(0), a_slice(1))

    job = a_job().prepared(first).prepared(first).prepared(both).prepared(both)

    assert (job.task_count, job.sample_count) == (2, 2000)


def test_audio_that_is_ready_stays_so_whatever_was_looked_at_before() -> None:
    ready = a_job().prepared(audio(a_slice(0), a_slice(1)))

    assert ready.prepared(audio(a_slice(0), state=AudioState.PREPARING)) is ready


def test_nobody_knows_the_share_while_the_audio_is_being_prepared() -> None:
    job = a_job().prepared(audio(a_slice(0), state=AudioState.PREPARING)).transcribed(1000)
    assert job.progress == 0

    assert job.prepared(audio(a_slice(0), a_slice(1))).progress == 0.5


def test_progress_moves_in_steps_and_is_never_whole_before_the_end() -> None:
    job = a_job().prepared(audio(a_slice(0), a_slice(1)))

    assert job.transcribed(19).progress == 0
    assert job.transcribed(20).progress == 0.01
    assert job.transcribed(2000).progress == 0.999
    assert job.transcribed(2000).joined(5, SPOKEN).joined(0, SPOKEN).settled(LATER).progress == 1


def test_a_job_knows_where_all_of_what_is_final_went() -> None:
    job = a_job().joined(1, Coverage(600, 300, (Span(0, 40), Span(50, 110)))).joined(0, SPOKEN)

    assert (job.speech_sample_count, job.silence_sample_count, job.gap_sample_count) == (
        1600, 300, 100,
    )  # fmt: skip


def test_a_job_succeeds_only_when_all_slices_are_known_and_done() -> None:
    preparing = a_job().prepared(audio(a_slice(0), state=AudioState.PREPARING)).joined(1, SPOKEN)
    waiting = a_job().prepared(audio(a_slice(0), a_slice(1))).joined(1, SPOKEN)

    assert preparing.settled(LATER).state is JobState.QUEUED
    assert waiting.settled(LATER).state is JobState.QUEUED
    assert waiting.joined(1, SPOKEN).settled(LATER).state is JobState.SUCCEEDED


def test_the_first_language_stays() -> None:
    assert a_job().detected("").detected("de").detected("fr").language_code == "de"


def test_tasks_wait_for_the_language_unless_it_is_known_or_changes() -> None:
    assert not a_job().releases_all
    assert a_job(language_code="de").releases_all
    assert a_job(config=Options(model="builtin", multilingual=True)).releases_all


def test_only_ended_jobs_are_deleted() -> None:
    a_job(JobState.FAILED).check_deletable()
    with pytest.raises(JobNotEnded):
        a_job(JobState.RUNNING).check_deletable()


def test_only_jobs_that_failed_on_good_audio_are_retried() -> None:
    a_job(JobState.CANCELLED).check_retryable()
    a_job(JobState.FAILED, error=JobError("SLICE_FAILED", "no")).check_retryable()
    for job in (
        a_job(JobState.SUCCEEDED),
        a_job(JobState.RUNNING),
        a_job(JobState.FAILED, error=JobError("AUDIO_DELETED", "no")),
        a_job(JobState.FAILED, error=JobError("AUDIO_REJECTED", "no")),
    ):
        with pytest.raises(JobNotRetryable):
            job.check_retryable()


def test_a_transcript_is_whole_or_asked_for_in_part() -> None:
    a_job(JobState.SUCCEEDED).check_readable(allow_partial=False)
    a_job(JobState.RUNNING).check_readable(allow_partial=True)
    with pytest.raises(JobNotEnded):
        a_job(JobState.RUNNING).check_readable(allow_partial=False)
    with pytest.raises(JobNotSucceeded):
        a_job(JobState.CANCELLED).check_readable(allow_partial=False)


@pytest.mark.parametrize("state", TaskState)
def test_only_a_pending_task_is_leased(state: TaskState) -> None:
    task = a_task(state, attempt=3)

    if state is TaskState.PENDING:
        leased = task.leased("worker", NOW)
        assert (leased.state, leased.attempt) == (TaskState.LEASED, 4)
    else:
        with pytest.raises(TaskLeased if state is TaskState.LEASED else TaskNotPending):
            task.leased("worker", NOW)


@pytest.mark.parametrize("state", [s for s in TaskState if s is not TaskState.LEASED])
def test_only_a_leased_task_is_completed_or_given_back(state: TaskState) -> None:
    moves: list[Callable[[Task], Task]] = [
        lambda task: task.completed(),
        lambda task: task.given_back(Failure.RETRYABLE, "", NOW, RULES),
    ]
    for move in moves:
        with pytest.raises(IllegalMove):
            move(a_task(state))


def test_only_the_last_lease_counts() -> None:
    task = a_task(TaskState.LEASED, attempt=2)

    task.check_lease(2, TaskState.LEASED)
    for attempt, state in ((1, TaskState.LEASED), (3, TaskState.LEASED), (2, TaskState.DONE)):
        with pytest.raises(StaleLease):
            task.check_lease(attempt, state)


def test_progress_of_a_task_never_goes_back_nor_beyond_its_slice() -> None:
    task = a_task(TaskState.LEASED).advanced(500)

    assert task.advanced(300).transcribed_sample_count == 500
    assert task.advanced(9999).transcribed_sample_count == 1000


RULES = RetryRules(max_failures=5, longest_pause=timedelta(minutes=5))


def tried(failure: Failure, times: int) -> Task:
    """A task of which so many tries ended so."""
    task = a_task()
    for _ in range(times):
        task = task.leased("w", task.next_attempt_time or NOW).given_back(failure, "no", NOW, RULES)
    return task


def test_a_slice_ends_its_job_when_it_failed_too_often_while_it_ran_alone() -> None:
    beside_others = tried(Failure.RETRYABLE, 2)
    last_try = tried(Failure.RETRYABLE, 6)

    assert (beside_others.failures, beside_others.alone) == (0, True)
    assert (last_try.state, last_try.failures) == (TaskState.PENDING, 4)
    assert tried(Failure.RETRYABLE, 7).state is TaskState.FAILED


@pytest.mark.parametrize("failure", [Failure.EXPIRED, Failure.UNREADABLE])
def test_what_no_worker_says_of_the_slice_itself_never_ends_a_job(failure: Failure) -> None:
    task = tried(failure, 1000)

    assert (task.state, task.failures) == (TaskState.PENDING, 0)
    assert task.next_attempt_time == NOW + RULES.longest_pause


def test_what_no_try_can_help_ends_at_once() -> None:
    assert tried(Failure.PERMANENT, 1).state is TaskState.FAILED


def test_what_is_handed_back_is_as_it_was() -> None:
    task = tried(Failure.EXPIRED, 1)
    back = task.leased("w", LATER).given_back(Failure.HANDED_BACK, "stops", LATER, RULES)

    assert (back.failure_count, back.last_error, back.next_attempt_time) == (1, "no", None)


def test_a_lost_slice_runs_beside_others_once_more_and_then_alone_after_growing_pauses() -> None:
    pauses = []
    task = a_task()
    for _ in range(5):
        task = task.leased("w", task.next_attempt_time or LATER)
        task = task.given_back(Failure.EXPIRED, "", LATER, RULES)
        assert task.next_attempt_time is not None
        pauses.append(((task.next_attempt_time - LATER).total_seconds(), task.alone))

    assert pauses == [(0, False), (2, True), (4, True), (8, True), (16, True)]


def test_a_task_is_not_leased_before_its_time() -> None:
    task = a_task(next_attempt_time=LATER)

    with pytest.raises(TaskNotPending):
        task.leased("worker", NOW)
    assert task.leased("worker", LATER).next_attempt_time is None


def test_every_task_state_that_is_no_start_is_final() -> None:
    assert set(TaskState) - set(TASK_MOVES) == {
        TaskState.DONE,
        TaskState.FAILED,
        TaskState.CANCELLED,
    }


def test_the_log_of_a_job_begins_with_the_job() -> None:
    job, changes = events_between(None, a_job())

    assert job.revision == 1
    assert changes == [StateChanged(job)]


def test_the_log_tells_segments_before_the_end() -> None:
    before = a_job(JobState.RUNNING, revision=7, audio_state=AudioState.READY)
    added = SegmentsAdded([Segment(0, 1, " hello")])

    after, changes = events_between(before, before.settled(LATER), [added])

    assert changes == [added, StateChanged(after)]
    assert after.revision == 9


def test_the_log_tells_progress_but_not_what_nobody_sees() -> None:
    before = a_job(JobState.RUNNING).prepared(audio(a_slice()))

    after, changes = events_between(before, before.transcribed(500))
    same, nothing = events_between(before, before.transcribed(1))

    assert changes == [Progressed(after)]
    assert (nothing, same.revision) == ([], before.revision)


def test_the_end_is_not_also_progress() -> None:
    before = a_job(JobState.RUNNING).prepared(audio(a_slice())).joined(0, SPOKEN)

    after, changes = events_between(before, before.transcribed(1000).settled(LATER))

    assert changes == [StateChanged(after)]
