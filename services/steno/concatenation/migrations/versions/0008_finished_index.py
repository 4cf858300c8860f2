"""Sessions that ended long ago are found without a look at all."""

from alembic import op

revision = "concatenation_0008"
down_revision = "concatenation_0007"

INDEX = """
CREATE INDEX CONCURRENTLY sessions_finished ON concatenation.sessions (end_time)
WHERE finished
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it may wait: nobody waits for it
        # Of a try that was cut off.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS concatenation.sessions_finished")
        op.execute(INDEX)
        op.execute("SET lock_timeout = '2s'")
