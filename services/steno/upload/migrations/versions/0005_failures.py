"""A preparation that failed is tried again, and rejected bytes are kept for a while."""

from alembic import op

revision = "upload_0005"
down_revision = "upload_0004"

COLUMNS = """
ALTER TABLE upload.audio
    -- Earlier versions, beside or after this one, remove the bytes when it is five: never.
    ALTER failures SET DEFAULT -1000000,
    -- Tries to prepare it that failed since its last slice, and what the last of them met.
    ADD failure_count integer NOT NULL DEFAULT 0,
    ADD failure_reason text NOT NULL DEFAULT '',
    ADD failure_message text NOT NULL DEFAULT '',
    -- When the bytes of a rejected audio are removed; null where that was at once, and where they
    -- lie below recordings/, from which no rejection removes any.
    ADD purge_time timestamptz;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
