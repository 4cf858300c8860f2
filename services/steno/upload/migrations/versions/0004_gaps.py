"""Recordings of live sessions may lack audio that never came."""

from alembic import op

revision = "upload_0004"
down_revision = "upload_0003"

COLUMN = """
-- Samples that are silence in place of audio that never came.
ALTER TABLE upload.audio ADD gaps int8multirange NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    op.execute(COLUMN)
