"""Uploads of which nothing lands are given up early."""

from alembic import op

revision = "upload_0006"
down_revision = "upload_0005"

COLUMN = """
-- When to look whether any part has landed; null once that is so.
ALTER TABLE upload.uploads ADD check_time timestamptz;
"""


def upgrade() -> None:
    op.execute(COLUMN)
