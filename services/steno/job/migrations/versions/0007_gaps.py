"""Recordings of live sessions may lack audio that never came."""

from alembic import op

revision = "job_0007"
down_revision = "job_0006"

COLUMN = """
-- Samples of the recording, within the slice, for which no audio ever came.
ALTER TABLE job.tasks ADD gaps int8multirange NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    op.execute(COLUMN)
