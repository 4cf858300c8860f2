"""What failed, or lost its worker, waits before it is tried again."""

from alembic import op

revision = "job_0008"
down_revision = "job_0007"

COLUMNS = """
ALTER TABLE job.tasks
    -- Tries that came to nothing, whoever was to blame. `failures` are those that count.
    ADD setbacks   integer NOT NULL DEFAULT 0 CHECK (setbacks >= 0),
    -- Not leased before this time.
    ADD retry_time timestamptz;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    # What GetJob and WatchJob tell of a job's.
    op.execute(
        "CREATE INDEX ON job.tasks (job_id) WHERE setbacks > 0 AND state IN ('PENDING', 'LEASED')"
    )
