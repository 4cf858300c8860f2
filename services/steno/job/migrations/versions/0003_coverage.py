"""Jobs know where every sample of what is final went."""

from alembic import op

revision = "job_0003"
down_revision = "job_0002"

COLUMNS = """
ALTER TABLE job.jobs
    ADD speech_sample_count  bigint NOT NULL DEFAULT 0,
    ADD silence_sample_count bigint NOT NULL DEFAULT 0,
    ADD gap_sample_count     bigint NOT NULL DEFAULT 0,
    ADD CHECK (speech_sample_count + silence_sample_count + gap_sample_count <= sample_count);
"""


def upgrade() -> None:
    op.execute(COLUMNS)
