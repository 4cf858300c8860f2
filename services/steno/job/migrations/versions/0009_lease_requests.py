"""A lease is answered again to the call that took it."""

from alembic import op

revision = "job_0009"
down_revision = "job_0008"

COLUMN = """
-- Made by the worker, for the call that took the last lease.
ALTER TABLE job.tasks ADD lease_request_id uuid;
"""


def upgrade() -> None:
    op.execute(COLUMN)
