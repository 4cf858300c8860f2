"""Audio knows the trace that it belongs to."""

from alembic import op

revision = "upload_0002"
down_revision = "upload_0001"

COLUMN = """
-- Headers of the call that made it, so that its preparation belongs to the same trace, whoever
-- announces it.
ALTER TABLE upload.audio ADD trace jsonb NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    op.execute(COLUMN)
