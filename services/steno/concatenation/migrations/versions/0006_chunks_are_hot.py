"""A chunk writes no index of its session's row."""

from alembic import op

revision = "concatenation_0006"
down_revision = "concatenation_0005"

INDEX = """
-- No query could use it: each session has its own idle_timeout.
DROP INDEX concatenation.sessions_chunk_time_idx;
-- Room for the next version of a row beside it, so that no index has to point elsewhere.
ALTER TABLE concatenation.sessions SET (fillfactor = 70);
"""


def upgrade() -> None:
    op.execute(INDEX)
