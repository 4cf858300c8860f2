"""Uploads of which nothing lands are given up early, and old ones are found by an index."""

from alembic import op

revision = "upload_0006"
down_revision = "upload_0005"

CHANGES = """
-- When to look whether any part has landed; null once that is so.
ALTER TABLE upload.uploads ADD check_time timestamptz;
CREATE INDEX ON upload.uploads (check_time) WHERE state = 'OPEN';
CREATE INDEX ON upload.uploads (expire_time) WHERE state IN ('ABORTED', 'EXPIRED');
"""


def upgrade() -> None:
    op.execute(CHANGES)
