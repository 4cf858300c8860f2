"""What GetJob and WatchJob tell of the slices of a job that are tried again is found at once."""

from alembic import op

revision = "job_0009"
down_revision = "job_0008"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it may wait: nobody waits for it
        op.execute(
            "DROP INDEX CONCURRENTLY IF EXISTS job.retried_tasks"
        )  # of a try that was cut off
        op.execute(
            "CREATE INDEX CONCURRENTLY retried_tasks ON job.tasks (job_id)"
            " WHERE failure_count > 0 AND state IN ('PENDING', 'LEASED')"
        )
        op.execute("SET lock_timeout = '2s'")
