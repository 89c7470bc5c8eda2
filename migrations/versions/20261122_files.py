"""Attachments are stored once for a tenant, by their digests.

The way down loses the bytes of the attachments of every mail stored since: one that still waits would be sent without
them. It is for databases whose mails may be lost.

Revision ID: 20261122_files
Revises: 20261122_admins
"""

from alembic import op

from service.db.row_security import isolate

revision = "20261122_files"
down_revision = "20261122_admins"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE attachment_files (
        tenant_id uuid NOT NULL,
        digest bytea NOT NULL,
        data bytea NOT NULL,
        used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_attachment_files PRIMARY KEY (tenant_id, digest)
    )
    """,
    # what is attached is mostly compressed already
    "ALTER TABLE attachment_files ALTER COLUMN data SET STORAGE EXTERNAL",
    "COMMENT ON COLUMN attachment_files.digest IS 'SHA-256 of the data'",
    "COMMENT ON COLUMN emails.attachment_data IS 'of mails before attachment_files: their bytes, one after the other'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    isolate("attachment_files")


def downgrade() -> None:
    op.execute("DROP TABLE attachment_files")
