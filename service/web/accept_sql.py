"""The SQL of the accept path, made once for each table."""
# ruff: noqa: S608 (names come from the code of a slice, values are always parameters)

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from callboard_workers.ledger import rows
from callboard_workers.ledger.database import ACT
from service.db.bulk_insert import Table

__all__ = ["ACT", "Table", "accept"]

KEY_COLUMNS = (
    ("tenant_id", "uuid"),
    ("key", "text"),
    ("fingerprint", "bytea"),
    ("status", "smallint"),
    ("response", "json"),
    ("headers", "json"),
    ("ttl", "double precision"),
)

MARKS = (("key_tenant", "uuid"), ("key_text", "text"))
OWNED = (("owner", "uuid"), *rows.COLUMNS)

FIND_KEYS = (
    "SELECT e.tenant_id, e.key, e.fingerprint, e.status, e.response::text AS response, e.headers::text AS headers"
    " FROM idempotency_keys e JOIN unnest($1::uuid[], $2::text[]) AS q(tenant_id, key)"
    " ON e.tenant_id = q.tenant_id AND e.key = q.key"
)

FORGET_KEYS = (
    "DELETE FROM idempotency_keys e USING unnest($1::uuid[], $2::text[]) AS q(tenant_id, key)"
    " WHERE e.tenant_id = q.tenant_id AND e.key = q.key"
)


def _shape(columns: Sequence[tuple[str, str]]) -> type[msgspec.Struct]:
    """Make the type of one object of a parameter, its values in the order of `columns`; what is None is left out."""
    return msgspec.defstruct("Row", [(name, Any, None) for name, _ in columns], omit_defaults=True, gc=False)


KEY_SHAPE = _shape(KEY_COLUMNS)
MESSAGE_SHAPE = _shape(OWNED)


@functools.cache
def record_shape(table: Table) -> type[msgspec.Struct]:
    """Make the type of one record: its MARKS, then the table's columns."""
    return _shape([*MARKS, *table.columns])


@functools.cache
def accept(table: Table, *, keyed: bool) -> str:
    """Write the one statement of a batch: keys, then the records they allow, then the records' ledger rows.

    Parameters, each a JSON array of objects: with `keyed` the KEY_COLUMNS of each key; of each record its key's
    `key_tenant` and `key_text` and the table's columns; of each message the id of its record, `owner`, and
    rows.COLUMNS. What is null may be left out. Last the tenants it acts for, as `app.tenants` holds them. Every row
    inserted comes out of a join with `acting`, so they are set before row-level security looks at the first.
    Rows: (id) of each stored record, (tenant_id, key) of each key taken, and the whole row of each key found.
    """
    first = 2 if keyed else 1
    parts = [f"acting AS MATERIALIZED (SELECT set_config('app.tenants', ${first + 2}::text, true))"]
    if keyed:
        parts.append(f"k AS MATERIALIZED (SELECT * FROM {_rows(1, 'given', KEY_COLUMNS)})")
        parts.append(f"taken AS ({_keys()})")
    parts.append(f"stored AS ({_records(table, first, keyed)})")
    parts.append(f"queued AS ({_messages(first + 1)})")
    return f"WITH {', '.join(parts)} {_answer(keyed)}"


def _keys() -> str:
    return (
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, response, headers, expires_at)"
        " SELECT k.tenant_id, k.key, decode(k.fingerprint, 'base64'), k.status, k.response, k.headers,"
        " clock_timestamp() + make_interval(secs => k.ttl)"
        " FROM k CROSS JOIN acting"
        " ON CONFLICT (tenant_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,"
        " response = excluded.response, headers = excluded.headers, created_at = clock_timestamp(),"
        " expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= clock_timestamp()"
        " RETURNING tenant_id, key"
    )


def _records(table: Table, first: int, keyed: bool) -> str:
    names = ", ".join(name for name, _ in table.columns)
    values = ", ".join(
        f"decode(r.{name}, 'base64')" if kind == "bytea" else f"r.{name}" for name, kind in table.columns
    )
    taken = (
        " WHERE r.key_text IS NULL OR (r.key_tenant, r.key_text) IN (SELECT tenant_id, key FROM taken)" if keyed else ""
    )
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {values}"
        f" FROM {_rows(first, 'r', [*MARKS, *table.columns])} CROSS JOIN acting{taken}"
        " ON CONFLICT DO NOTHING RETURNING id"
    )


def _messages(number: int) -> str:
    """Ledger rows of the stored records."""
    return (
        f"{rows.INSERT} {rows.SELECT} FROM {_rows(number, 'm', OWNED)}"
        " CROSS JOIN acting WHERE m.owner IN (SELECT id FROM stored) RETURNING id"
    )


def _rows(number: int, alias: str, columns: Sequence[tuple[str, str]]) -> str:
    """Write parameter `$number` as rows; bytes come as base64.

    One document costs half of what an array for each column costs to encode, and no more to read.
    """
    named = ", ".join(f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in columns)
    return f"json_to_recordset(${number}::json) AS {alias}({named})"


def _answer(keyed: bool) -> str:
    nothing = "NULL::bytea AS fingerprint, NULL::smallint AS status, NULL::text AS response, NULL::text AS headers"
    if not keyed:
        return f"SELECT id, NULL::uuid AS tenant_id, NULL::text AS key, {nothing} FROM stored"
    return (
        f"SELECT id, NULL::uuid AS tenant_id, NULL::text AS key, {nothing} FROM stored"
        f" UNION ALL SELECT NULL::uuid, tenant_id, key, {nothing} FROM taken"
        " UNION ALL SELECT NULL::uuid, e.tenant_id, e.key, e.fingerprint, e.status, e.response::text, e.headers::text"
        " FROM k JOIN idempotency_keys e ON e.tenant_id = k.tenant_id AND e.key = k.key"
        " WHERE (k.tenant_id, k.key) NOT IN (SELECT tenant_id, key FROM taken)"
    )
