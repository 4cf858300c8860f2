"""Sessions know the trace that they belong to."""

from alembic import op

revision = "concatenation_0002"
down_revision = "concatenation_0001"

COLUMN = """
-- Headers of the call that opened it, so that its audio and its final job belong to the same trace.
ALTER TABLE concatenation.sessions ADD trace jsonb NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    op.execute(COLUMN)
