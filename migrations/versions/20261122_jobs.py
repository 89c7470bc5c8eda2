"""Jobs: plans, organizations, their monthly quotas, and the jobs, whose state and quota follow the ledger.

One statement-level trigger does both in the transaction of the ledger's own transition: a quota is committed or given
back exactly once, whoever ends the job (worker, sweeper, operator, psql) and whatever dies in between.

Revision ID: 20261122_jobs
Revises: 20261122_options
"""

from alembic import op

revision = "20261122_jobs"
down_revision = "20261122_options"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE plans (
        key text NOT NULL,
        rank smallint NOT NULL,
        priority text NOT NULL,
        jobs_per_month integer NOT NULL,
        CONSTRAINT pk_plans PRIMARY KEY (key),
        CONSTRAINT uq_plans_rank UNIQUE (rank),
        CONSTRAINT ck_plans_priority CHECK (priority IN ('low', 'normal', 'high')),
        CONSTRAINT ck_plans_jobs_per_month CHECK (jobs_per_month >= 0)
    )
    """,
    """
    INSERT INTO plans (key, rank, priority, jobs_per_month)
    VALUES ('free', 0, 'low', 10), ('team', 1, 'normal', 100), ('business', 2, 'high', 1000)
    """,
    """
    CREATE TABLE organizations (
        tenant_id uuid NOT NULL,
        id text NOT NULL,
        plan text NOT NULL,
        trust_score smallint NOT NULL DEFAULT 50,
        job_limit integer,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_organizations PRIMARY KEY (tenant_id, id),
        CONSTRAINT fk_organizations_plan FOREIGN KEY (plan) REFERENCES plans (key),
        CONSTRAINT ck_organizations_trust_score CHECK (trust_score BETWEEN 0 AND 100),
        CONSTRAINT ck_organizations_job_limit CHECK (job_limit >= 0)
    )
    """,
    """
    CREATE TABLE quotas (
        tenant_id uuid NOT NULL,
        organization_id text NOT NULL,
        period date NOT NULL,
        used integer NOT NULL DEFAULT 0,
        reserved integer NOT NULL DEFAULT 0,
        CONSTRAINT pk_quotas PRIMARY KEY (tenant_id, organization_id, period),
        CONSTRAINT fk_quotas_tenant_id FOREIGN KEY (tenant_id, organization_id)
            REFERENCES organizations (tenant_id, id),
        CONSTRAINT ck_quotas_counts CHECK (used >= 0 AND reserved >= 0)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE jobs (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        type text NOT NULL,
        mode text NOT NULL,
        status text NOT NULL DEFAULT 'pending',
        organization_id text,
        priority text NOT NULL,
        cost smallint NOT NULL DEFAULT 0,
        quota text,
        period date,
        request_id text,
        input jsonb NOT NULL,
        result jsonb,
        attempts integer NOT NULL DEFAULT 0,
        scheduled_at timestamptz,
        finished_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_jobs PRIMARY KEY (id),
        CONSTRAINT fk_jobs_tenant_id FOREIGN KEY (tenant_id, organization_id)
            REFERENCES organizations (tenant_id, id),
        CONSTRAINT ck_jobs_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_jobs_status CHECK (
            status IN ('pending', 'processing', 'completed', 'failed', 'canceled', 'expired')),
        CONSTRAINT ck_jobs_priority CHECK (priority IN ('low', 'normal', 'high')),
        CONSTRAINT ck_jobs_quota CHECK (quota IN ('reserved', 'committed', 'released')),
        CONSTRAINT ck_jobs_payer CHECK (quota IS NULL OR (period IS NOT NULL AND organization_id IS NOT NULL))
    ) WITH (fillfactor = 60)
    """,
    "CREATE INDEX jobs_tenant_id ON jobs (tenant_id, id)",
    "COMMENT ON COLUMN plans.rank IS 'a job type asks for a plan of at least its own rank'",
    "COMMENT ON COLUMN plans.priority IS 'the most urgent priority, and the one where none is asked for'",
    "COMMENT ON COLUMN organizations.job_limit IS 'jobs a month; null for the plan''s'",
    "COMMENT ON COLUMN quotas.period IS 'the first day of the month, UTC'",
    "COMMENT ON COLUMN jobs.quota IS 'what became of its cost; null where it has none'",
    "COMMENT ON COLUMN jobs.attempts IS 'those that ended in an error'",
    "COMMENT ON COLUMN jobs.period IS 'the month whose quota it takes from'",
)

# A job that was given up, and is queued again, takes from the month in which that happens. Quotas are changed last and
# in one order, so that two batches never wait for each other.
MIRROR = """
CREATE FUNCTION jobs_mirror_messages() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    month date := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC');
    change record;
BEGIN
    IF NOT EXISTS (SELECT FROM changed WHERE queue = 'jobs') THEN
        RETURN NULL;
    END IF;
    FOR change IN
        WITH told AS (
            SELECT j.id, j.quota AS before, j.period AS month_before, c.state, c.result, c.attempts, c.finished_at
            FROM changed c JOIN jobs j ON j.id = c.id
            WHERE c.queue = 'jobs'
            ORDER BY j.id
            FOR NO KEY UPDATE OF j
        ),
        mirrored AS (
            SELECT id, before, month_before, result, attempts, finished_at,
                CASE state
                    WHEN 'queued' THEN 'pending'
                    WHEN 'running' THEN 'processing'
                    WHEN 'done' THEN 'completed'
                    WHEN 'canceled' THEN 'canceled'
                    WHEN 'expired' THEN 'expired'
                    ELSE 'failed'
                END AS status,
                CASE
                    WHEN before IS NULL THEN NULL
                    WHEN state = 'done' THEN 'committed'
                    WHEN state IN ('dead', 'canceled', 'expired') THEN 'released'
                    ELSE 'reserved'
                END AS quota
            FROM told
        ),
        moved AS (
            UPDATE jobs j
            SET status = m.status, quota = m.quota, result = m.result, attempts = m.attempts,
                finished_at = m.finished_at, updated_at = clock_timestamp(),
                period = CASE WHEN m.before = 'released' AND m.quota <> 'released' THEN month ELSE j.period END
            FROM mirrored m
            WHERE j.id = m.id AND (j.status <> m.status OR j.quota IS DISTINCT FROM m.quota)
            RETURNING j.tenant_id, j.organization_id, j.period, j.cost, m.before, m.month_before, j.quota
        ),
        deltas AS (
            SELECT tenant_id, organization_id, month_before AS period,
                CASE before WHEN 'committed' THEN -cost ELSE 0 END AS used,
                CASE before WHEN 'reserved' THEN -cost ELSE 0 END AS reserved
            FROM moved WHERE quota IS DISTINCT FROM before
            UNION ALL
            SELECT tenant_id, organization_id, period,
                CASE quota WHEN 'committed' THEN cost ELSE 0 END,
                CASE quota WHEN 'reserved' THEN cost ELSE 0 END
            FROM moved WHERE quota IS DISTINCT FROM before
        )
        SELECT d.tenant_id, d.organization_id, d.period, sum(d.used) AS used, sum(d.reserved) AS reserved
        FROM deltas d
        GROUP BY d.tenant_id, d.organization_id, d.period
        HAVING sum(d.used) <> 0 OR sum(d.reserved) <> 0
        ORDER BY d.tenant_id, d.organization_id, d.period
    LOOP
        INSERT INTO quotas (tenant_id, organization_id, period)
        VALUES (change.tenant_id, change.organization_id, change.period) ON CONFLICT DO NOTHING;
        UPDATE quotas q SET used = q.used + change.used, reserved = q.reserved + change.reserved
        WHERE q.tenant_id = change.tenant_id AND q.organization_id = change.organization_id
            AND q.period = change.period;
    END LOOP;
    RETURN NULL;
END
$$
"""

TRIGGER = """
CREATE TRIGGER jobs_mirror_messages AFTER UPDATE ON messages
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION jobs_mirror_messages()
"""


def upgrade() -> None:
    for statement in (*TABLES, MIRROR, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_mirror_messages ON messages")
    op.execute("DROP FUNCTION jobs_mirror_messages()")
    for table in ("jobs", "quotas", "organizations", "plans"):
        op.execute(f"DROP TABLE {table}")
