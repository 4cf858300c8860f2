"""What failed, or lost its worker, waits before its next try; a call leases again the same."""

from alembic import op

revision = "job_0008"
down_revision = "job_0007"

COLUMNS = """
ALTER TABLE job.tasks
    -- Tries that came to nothing, whoever was to blame. Not `failures`: those end the job.
    ADD failure_count     integer NOT NULL DEFAULT 0,
    -- Not leased before this time.
    ADD next_attempt_time timestamptz,
    -- Made by the worker, for the call that took the last lease.
    ADD lease_request_id  uuid;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
