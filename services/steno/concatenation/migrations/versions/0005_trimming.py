"""Sessions know whether what their recording was made of is gone from the tables."""

from alembic import op

revision = "concatenation_0005"
down_revision = "concatenation_0004"

COLUMN = """
ALTER TABLE concatenation.sessions
    -- Its chunks, pieces and parts are gone: nobody needs them once it is finished.
    ADD trimmed boolean NOT NULL DEFAULT false;
"""


def upgrade() -> None:
    op.execute(COLUMN)
