"""The SQL of the accept path, made once for each table."""
# ruff: noqa: S608 (names come from the code of a slice, values are always parameters)

import functools

from service.arrays import ENCODERS, Table, parameters
from workers.ledger import rows
from workers.ledger.statement import ACT

__all__ = ["ACT", "Table", "accept"]

KEY_COLUMNS = (
    ("tenant_id", "uuid"),
    ("key", "text"),
    ("fingerprint", "bytea"),
    ("status", "smallint"),
    ("response", "text"),
    ("headers", "text"),
    ("ttl", "double precision"),
)


FIND_KEYS = (
    "SELECT e.tenant_id, e.key, e.fingerprint, e.status, e.response::text AS response, e.headers::text AS headers"
    " FROM idempotency_keys e JOIN unnest($1::uuid[], $2::text[]) AS q(tenant_id, key)"
    " ON e.tenant_id = q.tenant_id AND e.key = q.key"
)

FORGET_KEYS = (
    "DELETE FROM idempotency_keys e USING unnest($1::uuid[], $2::text[]) AS q(tenant_id, key)"
    " WHERE e.tenant_id = q.tenant_id AND e.key = q.key"
)


@functools.cache
def accept(table: Table, *, keyed: bool) -> str:
    """Write the one statement of a batch: keys, then the records they allow, then the records' ledger rows.

    Parameters: with `keyed` the arrays of KEY_COLUMNS, then for each record its key's tenant and key (null without
    one); the arrays of the table's columns; for each message the id of its record, then the arrays of rows.COLUMNS;
    the tenants it acts for, as `app.tenants` holds them. Every row inserted comes out of a join with `acting`, so
    they are set before row-level security looks at the first.
    Rows: (id) of each stored record, (tenant_id, key) of each key taken, and the whole row of each key found.
    """
    first = 1
    parts: list[str] = []
    if keyed:
        parts.append(f"taken AS ({_keys()})")
        first += len(KEY_COLUMNS)
    parts.append(f"stored AS ({_records(table, first, keyed)})")
    first += len(table.columns) + (2 if keyed else 0)
    parts.append(f"queued AS ({_messages(first)})")
    last = first + 1 + len(rows.COLUMNS)
    acting = f"acting AS MATERIALIZED (SELECT set_config('app.tenants', ${last}::text, true))"
    return f"WITH {', '.join([acting, *parts])} {_answer(keyed)}"


def _keys() -> str:
    names = ", ".join(name for name, _ in KEY_COLUMNS)
    return (
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, response, headers, expires_at)"
        " SELECT k.tenant_id, k.key, k.fingerprint, k.status, k.response::json, k.headers::json,"
        " clock_timestamp() + make_interval(secs => k.ttl)"
        f" FROM unnest({parameters(1, [kind for _, kind in KEY_COLUMNS])}) AS k({names}) CROSS JOIN acting"
        " ON CONFLICT (tenant_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,"
        " response = excluded.response, headers = excluded.headers, created_at = clock_timestamp(),"
        " expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= clock_timestamp()"
        " RETURNING tenant_id, key"
    )


def _records(table: Table, first: int, keyed: bool) -> str:
    names = [name for name, _ in table.columns]
    kinds = ["text" if kind in ENCODERS else kind for _, kind in table.columns]
    marks = ["key_tenant", "key_text"] if keyed else []
    taken = (
        " WHERE r.key_text IS NULL OR (r.key_tenant, r.key_text) IN (SELECT tenant_id, key FROM taken)" if keyed else ""
    )
    casts = ", ".join(f"r.{name}::{kind}" if kind in ENCODERS else f"r.{name}" for name, kind in table.columns)
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {casts}"
        f" FROM unnest({parameters(first, [*(['uuid', 'text'] if keyed else []), *kinds])})"
        f" AS r({', '.join([*marks, *names])}) CROSS JOIN acting{taken} ON CONFLICT DO NOTHING RETURNING id"
    )


def _messages(first: int) -> str:
    """Ledger rows of the stored records; the owner's ids are one more array beside the message's ids."""
    return (
        f"{rows.INSERT} {rows.SELECT} {rows.unnest(first + 1)}"
        f" JOIN unnest(${first}::uuid[], ${first + 1}::uuid[]) AS o(owner, message) ON o.message = m.id"
        " CROSS JOIN acting WHERE o.owner IN (SELECT id FROM stored) RETURNING id"
    )


def _answer(keyed: bool) -> str:
    nothing = "NULL::bytea AS fingerprint, NULL::smallint AS status, NULL::text AS response, NULL::text AS headers"
    if not keyed:
        return f"SELECT id, NULL::uuid AS tenant_id, NULL::text AS key, {nothing} FROM stored"
    return (
        f"SELECT id, NULL::uuid AS tenant_id, NULL::text AS key, {nothing} FROM stored"
        f" UNION ALL SELECT NULL::uuid, tenant_id, key, {nothing} FROM taken"
        " UNION ALL SELECT NULL::uuid, e.tenant_id, e.key, e.fingerprint, e.status, e.response::text, e.headers::text"
        " FROM unnest($1::uuid[], $2::text[]) AS q(tenant_id, key)"
        " JOIN idempotency_keys e ON e.tenant_id = q.tenant_id AND e.key = q.key"
        " WHERE (q.tenant_id, q.key) NOT IN (SELECT tenant_id, key FROM taken)"
    )
