"""Sessions say what kind of file their recording becomes."""

from alembic import op

revision = "concatenation_0003"
down_revision = "concatenation_0002"

COLUMN = """
ALTER TABLE concatenation.sessions
    ADD recording_format text NOT NULL DEFAULT 'WAV' CHECK (recording_format IN ('WAV', 'W64'));
"""


def upgrade() -> None:
    op.execute(COLUMN)
