"""Jobs may have a deadline, and may leave out slices that can't be transcribed."""

from alembic import op

revision = "job_0004"
down_revision = "job_0003"

COLUMNS = """
ALTER TABLE job.jobs
    ADD deadline     timestamptz,
    ADD allow_gaps   boolean NOT NULL DEFAULT false,
    -- Slices that were left out.
    ADD failed_count integer NOT NULL DEFAULT 0,
    ADD CHECK (failed_count BETWEEN 0 AND task_count),
    DROP CONSTRAINT error_only_with_failure,
    ADD CHECK ((error_reason IS NULL) = (error_message IS NULL)),
    ADD CONSTRAINT failed_with_reason CHECK (state <> 'FAILED' OR error_reason IS NOT NULL),
    ADD CONSTRAINT error_only_with_failure
        CHECK (error_reason IS NULL OR state = 'FAILED' OR failed_count > 0);
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    # What has run out of time.
    op.execute(
        "CREATE INDEX ON job.jobs (deadline)"
        " WHERE deadline IS NOT NULL AND state IN ('QUEUED', 'RUNNING')"
    )
