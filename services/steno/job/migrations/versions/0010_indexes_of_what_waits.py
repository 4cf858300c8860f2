"""What is looked for all the time is found without reading all that waits, and lists by state."""

from alembic import op

revision = "job_0010"
down_revision = "job_0009"

INDEXES = {
    "jobs_of_state": "(tenant, state, create_time DESC, job_id DESC)",
    "audio_to_check": "(audio_state, audio_check_time) WHERE state IN ('QUEUED', 'RUNNING')",
    "joined_in_part": "(job_id) WHERE state IN ('QUEUED', 'RUNNING')"
    " AND joined_count > 0 AND joined_count < task_count",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it may wait: nobody waits for it
        for name, definition in INDEXES.items():
            # of a try that was cut off
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS job.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON job.jobs {definition}")
        op.execute("SET lock_timeout = '2s'")
