"""The database itself refuses what must not happen, whoever asks."""

from __future__ import annotations

import psycopg
import pytest

from rows import Rows
from steno.job.domain import JOB_MOVES, TASK_MOVES, JobState, TaskState

JOB = "11111111-1111-4111-8111-111111111111"

JOB_IN = {
    "QUEUED": "",
    "RUNNING": "UPDATE job.jobs SET state = 'RUNNING', start_time = now();",
    "SUCCEEDED": """
        UPDATE job.jobs SET state = 'RUNNING', start_time = now();
        UPDATE job.jobs SET state = 'SUCCEEDED', progress = 1, end_time = now(),
            audio_state = 'READY';
    """,
    "FAILED": """
        UPDATE job.jobs SET state = 'FAILED', end_time = now(), error_reason = 'SLICE_FAILED',
            error_message = 'no';
    """,
    "CANCELLED": "UPDATE job.jobs SET state = 'CANCELLED', end_time = now();",
}

TO_JOB_STATE = {
    "QUEUED": "state = 'QUEUED', end_time = NULL",
    "RUNNING": "state = 'RUNNING', start_time = now(), end_time = NULL",
    "SUCCEEDED": "state = 'SUCCEEDED', progress = 1, end_time = now(), audio_state = 'READY'",
    "FAILED": "state = 'FAILED', end_time = now(), error_reason = 'x', error_message = 'x'",
    "CANCELLED": "state = 'CANCELLED', end_time = now()",
}

TASK_IN = {
    "PENDING": "",
    "LEASED": """
        UPDATE job.tasks SET state = 'LEASED', attempt = 1, worker_id = 'w', lease_time = now(),
            lease_expire_time = now();
    """,
}
TASK_IN |= {
    "DONE": TASK_IN["LEASED"]
    + """
        UPDATE job.tasks SET state = 'DONE', lease_expire_time = NULL, result = 'x',
            transcribed_sample_count = sample_count;
    """,
    "FAILED": TASK_IN["LEASED"]
    + "UPDATE job.tasks SET state = 'FAILED', lease_expire_time = NULL;",
    "CANCELLED": "UPDATE job.tasks SET state = 'CANCELLED';",
}

TO_TASK_STATE = {
    "PENDING": "state = 'PENDING', lease_expire_time = NULL",
    "LEASED": """state = 'LEASED', attempt = attempt + 1, worker_id = 'w', lease_time = now(),
        lease_expire_time = now()""",
    "DONE": """state = 'DONE', lease_expire_time = NULL, result = 'x',
        transcribed_sample_count = sample_count""",
    "FAILED": "state = 'FAILED', lease_expire_time = NULL",
    "CANCELLED": "state = 'CANCELLED', lease_expire_time = NULL",
}


@pytest.fixture
def job(rows: Rows) -> str:
    rows(
        "INSERT INTO job.jobs (job_id, audio_id, display_name, labels, config)"
        f" VALUES ('{JOB}', gen_random_uuid(), 'x', '{{}}', '{{\"model\": \"builtin\"}}');"
    )
    return JOB


@pytest.fixture
def task(job: str, rows: Rows) -> str:
    rows(
        "INSERT INTO job.tasks (job_id, model, slice_index, start_sample, sample_count,"
        f" speech_sample_count, object_key) VALUES ('{job}', 'builtin', 0, 0, 100, 0, 'x');"
    )
    return job


def refused(rows: Rows, statement: str) -> None:
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.UniqueViolation)):
        rows(statement)


def test_a_job_makes_exactly_the_moves_of_the_state_machine(job: str, rows: Rows) -> None:
    for here, arrive in JOB_IN.items():
        for there, change in TO_JOB_STATE.items():
            statement = f"BEGIN; {arrive} UPDATE job.jobs SET {change}; ROLLBACK;"
            if here == there and here in ("QUEUED", "RUNNING"):
                continue
            if JobState(there) in JOB_MOVES.get(JobState(here), ()):
                rows(statement)
            else:
                refused(rows, statement)


def test_a_task_makes_exactly_the_moves_of_the_state_machine(task: str, rows: Rows) -> None:
    for here, arrive in TASK_IN.items():
        for there, change in TO_TASK_STATE.items():
            if here == there:
                continue
            statement = f"BEGIN; {arrive} UPDATE job.tasks SET {change}; ROLLBACK;"
            if TaskState(there) in TASK_MOVES.get(TaskState(here), ()):
                rows(statement)
            else:
                refused(rows, statement)


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED"])
def test_a_job_that_has_ended_does_not_change_at_all(job: str, rows: Rows, state: str) -> None:
    rows(JOB_IN[state])

    refused(rows, "UPDATE job.jobs SET language_code = 'en'")


def test_a_job_holds_together(job: str, rows: Rows) -> None:
    for change in [
        "progress = 1",
        "progress = 1.5",
        "progress = -0.1",
        "state = 'SUCCEEDED', end_time = now(), audio_state = 'READY'",
        "state = 'SUCCEEDED', progress = 1, end_time = now(), audio_state = 'PREPARING'",
        "state = 'CANCELLED'",
        "state = 'FAILED', end_time = now()",
        "state = 'RUNNING'",
        "state = 'ASLEEP'",
        "error_reason = 'x', error_message = 'x'",
        "transcribed_sample_count = 1",
        "joined_count = 1",
    ]:
        refused(rows, f"UPDATE job.jobs SET {change}")


def test_what_a_job_counts_never_goes_back(job: str, rows: Rows) -> None:
    rows("UPDATE job.jobs SET progress = 0.5, revision = 5, task_count = 5")

    for change in ("progress = 0.4", "revision = 4", "task_count = 4"):
        refused(rows, f"UPDATE job.jobs SET {change}")


def test_a_language_that_is_known_stays(job: str, rows: Rows) -> None:
    rows("UPDATE job.jobs SET language_code = 'de'")

    refused(rows, "UPDATE job.jobs SET language_code = 'fr'")


def test_a_job_that_has_not_ended_is_not_deleted(job: str, rows: Rows) -> None:
    refused(rows, "DELETE FROM job.jobs")


def test_a_job_begins_queued(rows: Rows) -> None:
    refused(
        rows,
        "INSERT INTO job.jobs (job_id, audio_id, display_name, labels, config, state, end_time)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), '', '{}', '{\"model\": \"x\"}',"
        " 'CANCELLED', now())",
    )


def test_a_leased_task_holds_together(task: str, rows: Rows) -> None:
    rows(TASK_IN["LEASED"] + "UPDATE job.tasks SET transcribed_sample_count = 5")

    for change in [
        "attempt = attempt + 1",
        "attempt = attempt - 1",
        "transcribed_sample_count = 4",
        "transcribed_sample_count = 101",
        "failures = failures - 1",
        "dispatch_count = dispatch_count - 1",
        "result = 'x'",
        "state = 'DONE', lease_expire_time = NULL, result = 'x'",
        "lease_expire_time = NULL",
    ]:
        refused(rows, f"UPDATE job.tasks SET {change}")


def test_each_lease_raises_the_attempt(task: str, rows: Rows) -> None:
    rows(TASK_IN["LEASED"] + "UPDATE job.tasks SET state = 'PENDING', lease_expire_time = NULL")

    refused(
        rows,
        "UPDATE job.tasks SET state = 'LEASED', worker_id = 'w', lease_time = now(),"
        " lease_expire_time = now()",
    )


def test_a_result_is_written_once(task: str, rows: Rows) -> None:
    rows(TASK_IN["DONE"])

    refused(rows, "UPDATE job.tasks SET result = 'y'")


def test_a_slice_has_one_task(task: str, rows: Rows) -> None:
    refused(
        rows,
        "INSERT INTO job.tasks (job_id, model, slice_index, start_sample, sample_count,"
        f" speech_sample_count, object_key) VALUES ('{task}', 'builtin', 0, 0, 1, 0, 'y')",
    )


def test_the_log_has_no_holes_and_does_not_change(job: str, rows: Rows) -> None:
    insert = f"INSERT INTO job.events (job_id, revision, payload) VALUES ('{job}', %s, 'x')"
    rows(insert, 1)
    rows(insert, 2)

    for statement in (
        insert.replace("%s", "4"),
        insert.replace("%s", "2"),
        insert.replace("%s", "0"),
        "UPDATE job.events SET payload = 'y'",
        "UPDATE job.events SET revision = 9 WHERE revision = 2",
    ):
        refused(rows, statement)
    rows("UPDATE job.events SET published = true")
    refused(rows, "UPDATE job.events SET published = false")
