"""What simulated recipients report is a message of its own, put when the email is sent: so `sent` comes first.

Revision ID: 20261129_simulated
Revises: 20261129_subjects
"""

from alembic import op

revision = "20261129_simulated"
down_revision = "20261129_subjects"
branch_labels = None
depends_on = None

# Settling and putting are one transaction: neither a dead worker nor an unknown outcome loses the reports.
FUNCTION = """
CREATE FUNCTION emails_put_reports() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM messages_put(NEW.fence_detail -> 'reports', NEW, '[]', NULL);
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER emails_put_reports AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.state = 'done' AND OLD.state <> 'done' AND NEW.fence_detail ? 'reports'
        AND NEW.actor = 'emails.send_email')
    EXECUTE FUNCTION emails_put_reports()
"""
KEEP_REPLIES = """
CREATE OR REPLACE TRIGGER emails_keep_replies AFTER UPDATE OF intent ON messages FOR EACH ROW
    WHEN (NEW.intent AND NOT OLD.intent AND NEW.fence_detail {has} AND NEW.actor = 'emails.send_email')
    EXECUTE FUNCTION emails_keep_replies()
"""


def upgrade() -> None:
    op.execute(KEEP_REPLIES.format(has="? 'replies'"))
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER emails_put_reports ON messages")
    op.execute("DROP FUNCTION emails_put_reports()")
    op.execute(KEEP_REPLIES.format(has="IS NOT NULL"))
