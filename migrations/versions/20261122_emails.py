"""Emails: one row for each mail, its status mirrored from the ledger by a trigger.

The trigger is a statement-level one with a transition table: a batch of a hundred settles costs one
UPDATE of `emails`, and every transition (worker, sweeper, operator, psql) reaches the record in the same transaction.

Revision ID: 20261122_emails
Revises: 20261122_access
"""

from alembic import op

revision = "20261122_emails"
down_revision = "20261122_access"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE emails (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    mode text NOT NULL,
    status text NOT NULL DEFAULT 'queued',
    lane text NOT NULL DEFAULT 'default',
    request_id text,
    category text,
    dedup_key text,
    follows uuid,
    message_id text NOT NULL,
    sender text NOT NULL,
    to_ text[] NOT NULL DEFAULT '{}',
    cc text[] NOT NULL DEFAULT '{}',
    bcc text[] NOT NULL DEFAULT '{}',
    reply_to text[] NOT NULL DEFAULT '{}',
    recipients text[] NOT NULL DEFAULT '{}',
    subject text,
    html text,
    text text,
    template_key text,
    template_locale text,
    template_variables jsonb,
    headers jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    attachments jsonb NOT NULL DEFAULT '[]',
    attachment_data bytea,
    scheduled_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_emails PRIMARY KEY (id),
    CONSTRAINT ck_emails_mode CHECK (mode IN ('live', 'test')),
    CONSTRAINT ck_emails_status CHECK (
        status IN ('queued', 'sending', 'sent', 'failed', 'canceled', 'expired', 'uncertain')),
    CONSTRAINT ck_emails_lane CHECK (lane IN ('critical', 'default', 'bulk')),
    CONSTRAINT ck_emails_content CHECK ((template_key IS NULL) <> (subject IS NULL)),
    CONSTRAINT ck_emails_recipients CHECK (cardinality(recipients) > 0)
) WITH (fillfactor = 60, toast_tuple_target = 256)
"""

# fillfactor: a mail changes its status two or three times; with room on its page that writes no index entry.
# toast_tuple_target: a row over 2 kB moves its long columns (bodies, variables, attachments) out of line until
# what stays is small, and an UPDATE of `status` copies the pointers, never the bodies.
INDEXES = (
    "CREATE INDEX emails_tenant_id ON emails (tenant_id, id)",
    "CREATE UNIQUE INDEX emails_dedup_key ON emails (tenant_id, dedup_key) WHERE dedup_key IS NOT NULL",
    # Nearly every mail has one recipient: a plain b-tree entry. Only the others pay for an inverted index.
    "CREATE INDEX emails_recipient ON emails (tenant_id, (recipients[1]), id)",
    "CREATE INDEX emails_recipients ON emails USING gin (recipients) WHERE cardinality(recipients) > 1",
)

# The plan of the UPDATE is made once for each session, maybe while `emails` is empty: without the settings that plan
# would scan the whole table for each batch until the next ANALYZE. A transition table is small; look rows up by key.
COMMENTS = {
    "follows": "the mail of which this one serves the recipients that were put off",
    "message_id": "the Message-ID header, with its angle brackets",
    "recipients": "the envelope: each distinct addr-spec of to, cc and bcc",
    "attachments": "names, types and sizes in order",
    "attachment_data": "the bytes of all attachments, one after the other",
}

MIRROR = """
CREATE FUNCTION emails_mirror_messages() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    UPDATE emails
    SET status = mirrored.status, updated_at = clock_timestamp()
    FROM (
        SELECT id, CASE state
            WHEN 'queued' THEN 'queued'
            WHEN 'running' THEN 'sending'
            WHEN 'done' THEN 'sent'
            WHEN 'dead' THEN 'failed'
            WHEN 'canceled' THEN 'canceled'
            WHEN 'expired' THEN 'expired'
            ELSE 'uncertain'
        END AS status
        FROM changed
        WHERE actor = 'emails.send_email'
    ) AS mirrored
    WHERE emails.id = mirrored.id AND emails.status <> mirrored.status;
    RETURN NULL;
END
$$
"""

TRIGGER = """
CREATE TRIGGER emails_mirror_messages AFTER UPDATE ON messages
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION emails_mirror_messages()
"""


def upgrade() -> None:
    op.execute(TABLE)
    for index in INDEXES:
        op.execute(index)
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN emails.{column} IS '{comment}'")
    op.execute(MIRROR)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER emails_mirror_messages ON messages")
    op.execute("DROP FUNCTION emails_mirror_messages()")
    op.execute("DROP TABLE emails")
