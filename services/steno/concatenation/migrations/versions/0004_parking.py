"""Sessions say why the work behind them waits."""

from alembic import op

revision = "concatenation_0004"
down_revision = "concatenation_0003"

COLUMNS = """
ALTER TABLE concatenation.sessions
    -- Of the last try that came to nothing.
    ADD failure_reason text NOT NULL DEFAULT '',
    ADD failure_message text NOT NULL DEFAULT '',
    -- When the lease was taken: who holds it long enough has not failed.
    ADD lease_time timestamptz;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
