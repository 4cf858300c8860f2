"""Jobs have a priority and may wait for a time; tasks have a turn."""

from alembic import op

revision = "job_0002"
down_revision = "job_0001"

COLUMNS = """
-- The smaller number goes first: HIGH, NORMAL, LOW.
ALTER TABLE job.jobs
    ADD priority   smallint NOT NULL DEFAULT 2 CHECK (priority BETWEEN 1 AND 3),
    ADD not_before timestamptz,
    -- On the queue's clock, in samples: where its last slice ends.
    ADD turn       bigint NOT NULL DEFAULT 0;

ALTER TABLE job.tasks
    ADD priority   smallint NOT NULL DEFAULT 2 CHECK (priority BETWEEN 1 AND 3),
    -- Where it begins on the queue's clock. Tasks are started in this order.
    ADD turn       bigint NOT NULL DEFAULT 0;
"""

INDEXES = """
DROP INDEX job.tasks_create_time_slice_index_idx;
CREATE INDEX ON job.tasks (model, priority, turn, slice_index)
    WHERE state = 'PENDING' AND released AND message_sequence IS NULL;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(INDEXES)
