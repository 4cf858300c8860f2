"""Tenants share the workers: each one's tasks are found in their order."""

from alembic import op

revision = "job_0005"
down_revision = "job_0004"

INDEXES = """
DROP INDEX job.tasks_model_priority_turn_slice_index_idx;
CREATE INDEX ON job.tasks (model, tenant, priority, turn, slice_index)
    WHERE state = 'PENDING' AND released AND message_sequence IS NULL;
CREATE INDEX ON job.jobs (tenant, model) WHERE state IN ('QUEUED', 'RUNNING');
"""


def upgrade() -> None:
    op.execute(INDEXES)
