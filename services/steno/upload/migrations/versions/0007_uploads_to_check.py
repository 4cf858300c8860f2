"""Uploads of which perhaps nothing has landed are found by an index."""

from alembic import op

revision = "upload_0007"
down_revision = "upload_0006"

DROP = "DROP INDEX CONCURRENTLY IF EXISTS upload.uploads_to_check"  # of a try that was cut off
CREATE = """
CREATE INDEX CONCURRENTLY uploads_to_check ON upload.uploads (check_time) WHERE state = 'OPEN'
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(DROP)
        op.execute(CREATE)
        op.execute("SET lock_timeout = '2s'")
