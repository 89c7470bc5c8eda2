"""The server's reply to each recipient is stored with the fence; deferred recipients get an email of their own then.

Revision ID: 20261129_replies
Revises: 20261129_endpoints
"""

from alembic import op

revision = "20261129_replies"
down_revision = "20261129_endpoints"
branch_labels = None
depends_on = None

COLUMNS = (
    "ALTER TABLE messages ADD COLUMN fence_detail jsonb",
    "COMMENT ON COLUMN messages.fence_detail IS 'what the attempt that last passed its fence stored with it'",
    "ALTER TABLE emails ADD COLUMN recipient_replies jsonb",
    "COMMENT ON COLUMN emails.recipient_replies IS"
    " 'by recipient: how the server refused it beside others; this email serves it no more'",
)

# The files of the attachments are marked as used, as by whatever else stores an email that names them.
FUNCTION = """
CREATE FUNCTION emails_keep_replies() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    continuation jsonb := NEW.fence_detail -> 'continuation';
BEGIN
    UPDATE emails e SET recipient_replies = coalesce(e.recipient_replies, '{}') || (
        SELECT jsonb_object_agg(r.key, r.value || jsonb_build_object('at', clock_timestamp()))
        FROM jsonb_each(NEW.fence_detail -> 'replies') r)
    WHERE e.id = NEW.id;
    IF continuation IS NULL THEN
        RETURN NULL;
    END IF;
    WITH named AS MATERIALIZED (
        SELECT f.tenant_id, f.digest FROM attachment_files f
        WHERE f.used_at <= clock_timestamp() - interval '12 hours' AND (f.tenant_id, f.digest) IN (
            SELECT e.tenant_id, decode(a.file ->> 'digest', 'hex')
            FROM emails e, jsonb_array_elements(e.attachments) AS a(file) WHERE e.id = NEW.id)
        ORDER BY f.digest FOR NO KEY UPDATE
    )
    UPDATE attachment_files f SET used_at = clock_timestamp() FROM named n
    WHERE f.tenant_id = n.tenant_id AND f.digest = n.digest;
    INSERT INTO emails (id, follows, recipients, tenant_id, mode, lane, category, message_id, sender, to_, cc, bcc,
        reply_to, subject, html, text, template_key, template_locale, template_version, template_variables, headers,
        tags, metadata, attachments, attachment_data, expires_at, request_id, created_at, unsubscribable)
    SELECT (continuation #>> '{message,id}')::uuid, e.id,
        ARRAY(SELECT jsonb_array_elements_text(continuation -> 'recipients')), e.tenant_id, e.mode, e.lane, e.category,
        e.message_id, e.sender, e.to_, e.cc, e.bcc, e.reply_to, e.subject, e.html, e.text, e.template_key,
        e.template_locale, e.template_version, e.template_variables, e.headers, e.tags, e.metadata, e.attachments,
        e.attachment_data, e.expires_at, e.request_id, e.created_at, e.unsubscribable
    FROM emails e WHERE e.id = NEW.id;
    PERFORM messages_put(
        (continuation -> 'message') || jsonb_build_object('uncertain', NEW.uncertain_policy), NEW, '[]', NULL);
    RETURN NULL;
END
$$
"""

TRIGGER = """
CREATE TRIGGER emails_keep_replies AFTER UPDATE OF intent ON messages FOR EACH ROW
    WHEN (NEW.intent AND NOT OLD.intent AND NEW.fence_detail IS NOT NULL AND NEW.actor = 'emails.send_email')
    EXECUTE FUNCTION emails_keep_replies()
"""


def upgrade() -> None:
    for statement in (*COLUMNS, FUNCTION, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER emails_keep_replies ON messages")
    op.execute("DROP FUNCTION emails_keep_replies()")
    op.execute("ALTER TABLE emails DROP COLUMN recipient_replies")
    op.execute("ALTER TABLE messages DROP COLUMN fence_detail")
