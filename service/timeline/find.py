"""Finds what an id, an address or a name stands for: each kind of record that the service stores."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.mail.address_text import canonical

LONGEST = 320  # characters: the longest address
MOST = 25  # matches that are returned

_PREFIXED = re.compile(r"([a-z]{2})_([0-9a-f]{32})", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OURS = "(CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)"


class Match(msgspec.Struct, frozen=True):
    """A record: its kind, its id as the API writes it, its tenant, and the request that created it, where known."""

    kind: str
    id: str
    tenant_id: UUID | None
    request_id: str | None = None


def _by_id(kind: str, prefix: str, table: str, request: str = "NULL", id: str = "id") -> TextClause:
    return text(
        f"SELECT '{kind}' AS kind, '{prefix}' || replace(CAST({id} AS text), '-', '') AS id, tenant_id,"  # noqa: S608
        f" {request} AS request_id FROM {table} WHERE id = :id AND {_OURS}"
    )


BY_ID = {
    "em": _by_id("email", "em_", "emails", "request_id"),
    "jb": _by_id("job", "jb_", "jobs", "request_id"),
    "bk": _by_id("broadcast", "bk_", "bulks", "request_id"),
    "no": _by_id("notification", "no_", "notifications", "request_id"),
    "wh": _by_id("webhook endpoint", "wh_", "webhook_endpoints"),
    "ev": _by_id("webhook event", "ev_", "webhook_events", "request_id"),
    "su": _by_id("suppression", "su_", "suppressions"),
    "sd": _by_id("domain", "sd_", "senders"),
    "tr": _by_id("transport", "tr_", "transports"),
    "ak": _by_id("key", "ak_", "api_keys"),
}
"""A statement for each kind of id with a prefix; these are looked up for an id without one, too."""

WITH_TASK = frozenset({"em", "jb", "bk", "no", "dl"})
"""Kinds whose records have the uuid of their task, which may be there longer than the record, or the other way."""

DELIVERY = text(f"""
SELECT 'webhook delivery' AS kind, 'wh_' || replace(CAST(d.endpoint_id AS text), '-', '') || '/dl_'
    || replace(CAST(d.id AS text), '-', '') AS id, d.tenant_id,
    (SELECT v.request_id FROM webhook_events v WHERE v.id = d.event_id) AS request_id
FROM webhook_deliveries d WHERE d.id = :id AND {_OURS.replace("tenant_id =", "d.tenant_id =")}
""")  # noqa: S608 (our own SQL)
TASK = text(f"""
SELECT 'task' AS kind, CAST(id AS text) AS id, tenant_id, request_id FROM messages WHERE id = :id AND {_OURS}
""")  # noqa: S608 (our own SQL)
BY_NAME = text(f"""
(SELECT 'request' AS kind, request_id AS id, tenant_id, request_id FROM messages
    WHERE request_id = :name AND {_OURS} LIMIT 1)
UNION ALL (SELECT 'request', request_id, tenant_id, request_id FROM emails
    WHERE request_id = :name AND {_OURS} LIMIT 1)
UNION ALL (SELECT 'user', id, tenant_id, NULL FROM users WHERE id = :name AND {_OURS} ORDER BY mode LIMIT 1)
UNION ALL (SELECT 'organization', id, tenant_id, NULL FROM organizations WHERE id = :name AND {_OURS} LIMIT 1)
UNION ALL (SELECT 'template', key, tenant_id, NULL FROM templates WHERE key = :name AND {_OURS} LIMIT 1)
""")  # noqa: S608 (our own SQL)
BY_ADDRESS = text(f"""
(SELECT 'emails to' AS kind, CAST(:address AS text) AS id, tenant_id, NULL AS request_id FROM emails
    WHERE {_OURS} AND (recipients[1] IN (:address, :canonical)
        OR (cardinality(recipients) > 1 AND recipients @> ARRAY[CAST(:address AS text)])) LIMIT 1)
UNION ALL (SELECT 'suppressions of', address, tenant_id, NULL FROM suppressions
    WHERE {_OURS} AND mode IN ('live', 'test') AND address = :canonical LIMIT 1)
UNION ALL (SELECT 'user', id, tenant_id, NULL FROM users
    WHERE {_OURS} AND mode IN ('live', 'test') AND lower(address) = :canonical ORDER BY no LIMIT 5)
""")  # noqa: S608 (our own SQL)


async def find(connection: AsyncConnection, wanted: str, tenant_id: UUID | None) -> list[Match]:
    """Return the records that `wanted` names, in a tenant or, for None, in all; the empty list for none.

    `wanted` is a whole id of any kind, with or without its prefix, a task's uuid, a request id, the id of a user or an
    organization, the key of a template, a Message-ID or an address.
    """
    wanted = wanted.strip()
    if not wanted or len(wanted) > LONGEST or not wanted.isprintable():
        return []
    found: dict[tuple[str, str], Match] = {}
    for statement, values in _statements(wanted):
        values["tenant_id"] = tenant_id
        for row in await connection.execute(statement, values):
            found.setdefault((row.kind, row.id), Match(*row))
    return list(found.values())[:MOST]


def _statements(wanted: str) -> Iterator[tuple[TextClause, dict[str, Any]]]:
    """The statements that can find it, the likeliest first."""
    prefixed = _PREFIXED.fullmatch(wanted)
    if prefixed is not None:
        id, prefix = UUID(prefixed[2]), prefixed[1].lower()
        known = DELIVERY if prefix == "dl" else BY_ID.get(prefix)
        yield from ([(known, {"id": id})] if known is not None else [])
        yield from ([(TASK, {"id": id})] if prefix in WITH_TASK else [])
    elif _DIGITS.fullmatch(wanted):
        every = [TASK, *BY_ID.values(), DELIVERY] if "-" in wanted else [*BY_ID.values(), DELIVERY, TASK]
        yield from ((statement, {"id": UUID(wanted)}) for statement in every)
    local, at, _ = wanted.strip("<>").rpartition("@")
    if at and _DIGITS.fullmatch(local):  # a Message-ID
        yield BY_ID["em"], {"id": UUID(local)}
    if at:
        address = wanted.strip("<>")
        yield BY_ADDRESS, {"address": address, "canonical": canonical(address)}
    yield BY_NAME, {"name": wanted}
