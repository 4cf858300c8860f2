"""Uploads that became no audio are found by an index when it is time to forget them."""

from alembic import op

revision = "upload_0008"
down_revision = "upload_0007"

DROP = "DROP INDEX CONCURRENTLY IF EXISTS upload.uploads_to_forget"  # of a try that was cut off
CREATE = """
CREATE INDEX CONCURRENTLY uploads_to_forget ON upload.uploads (expire_time)
WHERE state IN ('ABORTED', 'EXPIRED')
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(DROP)
        op.execute(CREATE)
        op.execute("SET lock_timeout = '2s'")
