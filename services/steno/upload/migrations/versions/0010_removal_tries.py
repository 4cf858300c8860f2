"""Removals know whether somebody is at work on them, and how often that was in vain."""

from alembic import op

revision = "upload_0010"
down_revision = "upload_0009"

COLUMN = """
ALTER TABLE upload.removals
    -- Since it was planned, or since it was done once.
    ADD try_count integer NOT NULL DEFAULT 0;
"""


def upgrade() -> None:
    op.execute(COLUMN)
