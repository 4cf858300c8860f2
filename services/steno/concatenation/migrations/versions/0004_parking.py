"""Sessions say why the work behind them waits."""

from alembic import op

revision = "concatenation_0004"
down_revision = "concatenation_0003"

COLUMNS = """
ALTER TABLE concatenation.sessions
    -- Tries in a row that came to nothing. The version before counts failures, and closes a session
    -- by their number: not these.
    ADD failure_count integer NOT NULL DEFAULT 0,
    -- Of the last of them.
    ADD failure_reason text NOT NULL DEFAULT '',
    ADD failure_message text NOT NULL DEFAULT '',
    -- When the lease was taken: who holds it long enough has not failed.
    ADD lease_time timestamptz;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
