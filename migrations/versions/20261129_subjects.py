"""The subject of an email from a template is stored once it is rendered; users are found by their address.

Revision ID: 20261129_subjects
Revises: 20261129_modes
"""

from alembic import op

revision = "20261129_subjects"
down_revision = "20261129_modes"
branch_labels = None
depends_on = None

COLUMN = "ALTER TABLE emails ADD COLUMN rendered_subject text"
COMMENT = "COMMENT ON COLUMN emails.rendered_subject IS 'of a template, as the last attempt rendered it'"
INDEX = "CREATE INDEX users_address ON users (tenant_id, mode, lower(address))"

# The same statement as before, in the same transaction as the settlement; it keeps the subject beside the status.
MIRROR = """
CREATE OR REPLACE FUNCTION emails_mirror_messages() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    UPDATE emails
    SET status = CASE mirrored.status WHEN 'sent' THEN coalesce(emails.delivery, 'sent') ELSE mirrored.status END,
        updated_at = clock_timestamp(){subject}
    FROM (
        SELECT id, {outcome}CASE state
            WHEN 'queued' THEN 'queued'
            WHEN 'running' THEN 'sending'
            WHEN 'done' THEN CASE WHEN outcome ->> 'status' = 'suppressed' THEN 'suppressed' ELSE 'sent' END
            WHEN 'dead' THEN 'failed'
            WHEN 'canceled' THEN 'canceled'
            WHEN 'expired' THEN 'expired'
            ELSE 'uncertain'
        END AS status
        FROM changed
        WHERE actor = 'emails.send_email'
    ) AS mirrored
    WHERE emails.id = mirrored.id
        AND emails.status <> CASE mirrored.status WHEN 'sent' THEN coalesce(emails.delivery, 'sent') ELSE mirrored.status END;
    RETURN NULL;
END
$$
"""
KEPT = ",\n        rendered_subject = coalesce(mirrored.subject, emails.rendered_subject)"


def upgrade() -> None:
    op.execute(COLUMN)
    op.execute(COMMENT)
    op.execute(MIRROR.format(subject=KEPT, outcome="outcome ->> 'subject' AS subject, "))
    op.execute(INDEX)


def downgrade() -> None:
    op.execute("DROP INDEX users_address")
    op.execute(MIRROR.format(subject="", outcome=""))
    op.execute("ALTER TABLE emails DROP COLUMN rendered_subject")
