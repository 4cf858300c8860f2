"""Slices that are cut out of speech have some of their neighbours."""

from alembic import op

revision = "upload_0003"
down_revision = "upload_0002"

COLUMNS = """
-- Samples before the slice, and after it, that are transcribed with it; the object that has all.
ALTER TABLE upload.slices
    ADD left_context_sample_count bigint NOT NULL DEFAULT 0
        CHECK (left_context_sample_count BETWEEN 0 AND start_sample),
    ADD right_context_sample_count bigint NOT NULL DEFAULT 0
        CHECK (right_context_sample_count >= 0),
    ADD context_object_key text NOT NULL DEFAULT '';
"""


def upgrade() -> None:
    op.execute(COLUMNS)
