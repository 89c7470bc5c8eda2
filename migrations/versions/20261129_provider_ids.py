"""Emails sent by Amazon SES are found by the id in its reply, which replaces their Message-ID.

Revision ID: 20261129_provider_ids
Revises: 20261129_replies
"""

from alembic import op

revision = "20261129_provider_ids"
down_revision = "20261129_replies"
branch_labels = None
depends_on = None

COLUMN = (
    "ALTER TABLE emails ADD COLUMN provider_id text",
    "COMMENT ON COLUMN emails.provider_id IS 'the id that Amazon SES replaced the Message-ID with'",
    "CREATE INDEX emails_provider_id ON emails (provider_id) WHERE provider_id IS NOT NULL",
)

FUNCTION = """
CREATE FUNCTION emails_keep_provider_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE emails SET provider_id = NEW.outcome ->> 'queue_id' WHERE id = NEW.id;
    RETURN NULL;
END
$$
"""

# Every id of SES ends so, and those of other servers do not: their emails are not touched.
TRIGGER = """
CREATE TRIGGER emails_keep_provider_id AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.state = 'done' AND OLD.state <> 'done' AND NEW.actor = 'emails.send_email'
        AND NEW.outcome ->> 'queue_id' LIKE '%-000000')
    EXECUTE FUNCTION emails_keep_provider_id()
"""


def upgrade() -> None:
    for statement in (*COLUMN, FUNCTION, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER emails_keep_provider_id ON messages")
    op.execute("DROP FUNCTION emails_keep_provider_id()")
    op.execute("ALTER TABLE emails DROP COLUMN provider_id")
