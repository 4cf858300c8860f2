"""What is to be trimmed is found without a look at all sessions."""

from alembic import op

revision = "concatenation_0007"
down_revision = "concatenation_0006"

INDEX = """
CREATE INDEX CONCURRENTLY sessions_untrimmed ON concatenation.sessions (end_time)
WHERE finished AND NOT trimmed
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it may wait: nobody waits for it
        # Of a try that was cut off.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS concatenation.sessions_untrimmed")
        op.execute(INDEX)
        op.execute("SET lock_timeout = '2s'")
