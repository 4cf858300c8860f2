"""Jobs know where every sample of what is final went, and are found by their end."""

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
    # What is too old to keep.
    op.execute("CREATE INDEX ON job.jobs (end_time) WHERE end_time IS NOT NULL")
