"""What actors may declare about their messages: crons, what follows, keys for a time, gates, results for a time.

All of it is null for the messages of actors that declare none of it, and costs them nothing but a look at the null.

Revision ID: 20261122_options
Revises: 20261122_emails
"""

from alembic import op

revision = "20261122_options"
down_revision = "20261122_emails"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE messages
    ADD COLUMN follow jsonb,
    ADD COLUMN result_until timestamptz,
    ADD COLUMN frees_key boolean NOT NULL DEFAULT false,
    ADD COLUMN gate text,
    ADD COLUMN admitted boolean NOT NULL DEFAULT false,
    ADD COLUMN slots integer,
    ADD COLUMN pace integer,
    ADD COLUMN period double precision
"""

TABLES = (
    "CREATE TABLE message_crons (name text PRIMARY KEY, tick timestamptz NOT NULL)",
    """
    CREATE TABLE message_groups (
        id uuid PRIMARY KEY,
        members uuid[] NOT NULL,
        pending integer NOT NULL,
        callback jsonb,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    """
    CREATE TABLE message_keys (
        tenant_id uuid,
        actor text NOT NULL,
        key text NOT NULL,
        until timestamptz NOT NULL,
        message_id uuid NOT NULL
    )
    """,
    "CREATE TABLE message_starts (gate text NOT NULL, until timestamptz NOT NULL)",
)

INDEXES = (
    "CREATE UNIQUE INDEX message_keys_key ON message_keys (tenant_id, actor, key) NULLS NOT DISTINCT",
    "CREATE INDEX message_keys_until ON message_keys (until)",
    "CREATE INDEX message_starts_gate ON message_starts (gate, until)",
    """
    CREATE INDEX messages_waiting ON messages (gate, id)
        WHERE gate IS NOT NULL AND NOT admitted AND state = 'queued'
    """,
    """
    CREATE INDEX messages_admitted ON messages (gate)
        WHERE gate IS NOT NULL AND admitted AND state IN ('queued', 'running')
    """,
    "CREATE INDEX messages_results ON messages (result_until) WHERE result_until IS NOT NULL",
)

# A message that is put by another one: of its request, tenant and trace; `more` are arguments it is given beside its own.
PUT = """
CREATE FUNCTION messages_put(spec jsonb, parent messages, more jsonb, ended text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    due timestamptz := coalesce((spec ->> 'due_at')::timestamptz,
        moment + make_interval(secs => coalesce((spec ->> 'delay')::double precision, 0)));
BEGIN
    INSERT INTO messages (id, tenant_id, actor, queue, priority, args, headers, request_id, state, error, finished_at,
        max_crashes, uncertain_policy, due_at, ring_at, expires_at, follow, gate, slots, pace, period)
    VALUES (
        -- without an id of its own: a UUIDv7 of now
        coalesce((spec ->> 'id')::uuid, encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            PLACING substring(int8send((extract(epoch FROM moment) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid),
        coalesce((spec ->> 'tenant_id')::uuid, parent.tenant_id),
        spec ->> 'actor', spec ->> 'queue', (spec ->> 'priority')::smallint,
        jsonb_build_array((spec #> '{args,0}') || more, spec #> '{args,1}'),
        (parent.headers - 'route' - 'received_at') || jsonb_build_object(
            'parent_id', parent.id, 'root_id', coalesce(parent.headers ->> 'root_id', parent.id::text)),
        parent.request_id,
        coalesce(ended, 'queued'),
        CASE WHEN ended IS NOT NULL THEN jsonb_build_object('type', 'Abandoned', 'at', moment,
            'message', format('message %s, on which it depends, was %s', parent.id, parent.state)) END,
        CASE WHEN ended IS NOT NULL THEN moment END,
        coalesce((spec ->> 'max_crashes')::smallint, 3), coalesce(spec ->> 'uncertain', 'hold'),
        due, CASE WHEN spec ->> 'gate' IS NULL THEN due ELSE 'infinity' END,
        moment + make_interval(secs => (spec ->> 'expires')::double precision),
        spec -> 'follow', spec ->> 'gate', (spec ->> 'slots')::integer, (spec ->> 'pace')::integer,
        (spec ->> 'period')::double precision)
    ON CONFLICT DO NOTHING;
END
$$
"""

# What a group waits for can no longer come: so says the row of its callback.
END_GROUP = """
CREATE FUNCTION message_groups_end(which uuid, parent messages) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    callback jsonb;
BEGIN
    UPDATE message_groups g SET pending = -1 WHERE g.id = which AND g.pending > 0 RETURNING g.callback INTO callback;
    IF callback IS NOT NULL THEN
        PERFORM messages_end(callback, parent);
    END IF;
END
$$
"""

# A step that will never come, and all that was to come after it.
END = """
CREATE FUNCTION messages_end(spec jsonb, parent messages) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    step jsonb;
BEGIN
    PERFORM messages_put(spec, parent, '[]', 'canceled');
    FOR step IN SELECT s FROM jsonb_array_elements(coalesce(spec #> '{follow,success}', '[]')) s WHERE s ? 'step' LOOP
        PERFORM messages_end(step, parent);
    END LOOP;
    IF spec #>> '{follow,group}' IS NOT NULL THEN
        PERFORM message_groups_end((spec #>> '{follow,group}')::uuid, parent);
    END IF;
END
$$
"""

FOLLOW = """
CREATE FUNCTION messages_follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    spec jsonb;
    found message_groups;
    more jsonb;
BEGIN
    IF NEW.state = 'done' THEN
        FOR spec IN SELECT jsonb_array_elements(coalesce(NEW.follow -> 'success', '[]')) LOOP
            more := CASE WHEN spec ? 'takes' THEN jsonb_build_array(coalesce(NEW.result, 'null')) ELSE '[]' END;
            PERFORM messages_put(spec, NEW, more, NULL);
        END LOOP;
        IF NEW.follow ? 'group' THEN
            UPDATE message_groups g SET pending = g.pending - 1
            WHERE g.id = (NEW.follow ->> 'group')::uuid AND g.pending > 0
            RETURNING * INTO found;
            IF found.pending = 0 AND found.callback IS NOT NULL THEN
                SELECT jsonb_build_array(jsonb_agg(coalesce(m.result, 'null') ORDER BY o.place)) INTO more
                FROM unnest(found.members) WITH ORDINALITY AS o(id, place) LEFT JOIN messages m ON m.id = o.id;
                IF NOT found.callback ? 'takes' THEN
                    more := '[]';
                END IF;
                PERFORM messages_put(found.callback, NEW, more, NULL);
            END IF;
        END IF;
    ELSIF NEW.state = 'dead' THEN
        FOR spec IN SELECT jsonb_array_elements(coalesce(NEW.follow -> 'dead', '[]')) LOOP
            PERFORM messages_put(spec, NEW,
                jsonb_build_array(NEW.id, coalesce(NEW.error, '{}') - 'definite'), NULL);
        END LOOP;
    ELSIF NEW.state IN ('canceled', 'expired') THEN
        FOR spec IN SELECT s FROM jsonb_array_elements(coalesce(NEW.follow -> 'success', '[]')) s WHERE s ? 'step' LOOP
            PERFORM messages_end(spec, NEW);
        END LOOP;
        IF NEW.follow ? 'group' THEN
            PERFORM message_groups_end((NEW.follow ->> 'group')::uuid, NEW);
        END IF;
    END IF;
    RETURN NULL;
END
$$
"""

FOLLOW_TRIGGER = """
CREATE TRIGGER messages_follow AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.follow IS NOT NULL AND NEW.state <> OLD.state)
    EXECUTE FUNCTION messages_follow()
"""

STARTED = """
CREATE FUNCTION messages_started() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO message_starts (gate, until) VALUES (NEW.gate, clock_timestamp() + make_interval(secs => NEW.period));
    RETURN NULL;
END
$$
"""

STARTED_TRIGGER = """
CREATE TRIGGER messages_started AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.pace IS NOT NULL AND NEW.state = 'running' AND OLD.state = 'queued')
    EXECUTE FUNCTION messages_started()
"""

# In a function, because each of its statements sees what was committed before it got the lock. The oldest message
# says what the limits are. What is admitted and has not started yet counts as if it had: so no window of `period`
# seconds sees more than `pace` starts, whenever the workers come to it.
ADMIT = """
CREATE FUNCTION messages_admit(wanted text) RETURNS SETOF messages LANGUAGE plpgsql AS $$
DECLARE
    head messages;
    moment timestamptz;
    free bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(wanted, 1196313669));
    moment := clock_timestamp();
    SELECT * INTO head FROM messages m
    WHERE m.gate = wanted AND m.state = 'queued' AND NOT m.admitted AND m.due_at <= moment
    ORDER BY m.id LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM message_starts s WHERE s.gate = wanted AND s.until <= moment;
    SELECT least(
        head.slots - count(*),
        head.pace - count(*) FILTER (WHERE m.state = 'queued')
            - (SELECT count(*) FROM message_starts s WHERE s.gate = wanted AND s.until > moment),
        1000
    ) INTO free
    FROM messages m WHERE m.gate = wanted AND m.admitted AND m.state IN ('queued', 'running');
    IF free <= 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH chosen AS (
        SELECT m.id FROM messages m
        WHERE m.gate = wanted AND m.state = 'queued' AND NOT m.admitted AND m.due_at <= moment
            AND (m.expires_at IS NULL OR m.expires_at > moment)
        ORDER BY m.id LIMIT free
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE messages m SET admitted = true, rings = 1, ring_at = moment + interval '5 s'
    FROM chosen WHERE m.id = chosen.id AND m.state = 'queued' AND NOT m.admitted
    RETURNING m.*;
END
$$
"""

ADMIT_ALL = """
CREATE FUNCTION messages_admit_all(sweeper bigint) RETURNS SETOF messages LANGUAGE plpgsql AS $$
DECLARE
    wanted text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(sweeper) THEN
        RETURN;
    END IF;
    SELECT min(m.gate) INTO wanted FROM messages m
    WHERE m.gate IS NOT NULL AND NOT m.admitted AND m.state = 'queued';
    WHILE wanted IS NOT NULL LOOP
        RETURN QUERY SELECT * FROM messages_admit(wanted);
        SELECT min(m.gate) INTO wanted FROM messages m
        WHERE m.gate > wanted AND m.gate IS NOT NULL AND NOT m.admitted AND m.state = 'queued';
    END LOOP;
END
$$
"""

FUNCTIONS = (PUT, END_GROUP, END, FOLLOW, FOLLOW_TRIGGER, STARTED, STARTED_TRIGGER, ADMIT, ADMIT_ALL)


def upgrade() -> None:
    for statement in (COLUMNS, *TABLES, *INDEXES, *FUNCTIONS):
        op.execute(statement)


def downgrade() -> None:
    for trigger in ("messages_follow", "messages_started"):
        op.execute(f"DROP TRIGGER {trigger} ON messages")
    for function in (
        "messages_admit_all(bigint)",
        "messages_admit(text)",
        "messages_started()",
        "messages_follow()",
        "messages_end(jsonb, messages)",
        "message_groups_end(uuid, messages)",
        "messages_put(jsonb, messages, jsonb, text)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for table in ("message_starts", "message_keys", "message_groups", "message_crons"):
        op.execute(f"DROP TABLE {table}")
    op.execute(
        "ALTER TABLE messages DROP COLUMN follow, DROP COLUMN result_until, DROP COLUMN frees_key, DROP COLUMN gate,"
        " DROP COLUMN admitted, DROP COLUMN slots, DROP COLUMN pace, DROP COLUMN period"
    )
