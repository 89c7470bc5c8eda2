"""Digests: what was collected for somebody over a period, as one mail.

A digest is closed in the transaction that stores its mail and takes what was collected. Whoever collects more locks
the open one; it waits for that transaction, finds it closed, and opens the next. So nothing is mailed twice or never.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import RowMapping, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import BigInteger, Text

from callboard_workers.message import Message
from callboard_workers.runtime import Runtime
from service.core.errors import ServiceError
from service.emails.actors import message as mail_message
from service.emails.insert import Mail, store
from service.emails.prepare import Draft
from service.emails.resources import Office
from service.emails.schemas import EmailRequest
from service.notifications.email import one_line, words
from service.settings import Settings
from service.templates.schemas import TemplateRef

log = structlog.get_logger("service.notifications")

BATCH = 200  # digests of one transaction
SHOWN = 50  # items of one digest; of more it tells how many

_DUE = text("""
SELECT g.user_no, g.pace, g.due_at, g.tenant_id, g.mode, u.email, u.locale,
    u.address IS NOT NULL AND emails_suppressed(g.tenant_id, g.mode, u.address, 'digest') AS suppressed
FROM digests g LEFT JOIN users u ON u.no = g.user_no
WHERE g.closed_at IS NULL AND g.due_at <= statement_timestamp()
ORDER BY g.due_at LIMIT :batch
FOR UPDATE OF g SKIP LOCKED
""")
_ITEMS = text("""
SELECT * FROM (
    SELECT d.user_no, d.pace, n.type, n.category, n.data, count(*) OVER own AS items,
        row_number() OVER (PARTITION BY d.user_no, d.pace ORDER BY d.notification_id) AS place
    FROM deliveries d JOIN notifications n ON n.id = d.notification_id
    WHERE d.user_no = ANY(:users) AND d.channel = 'email' AND d.pace IS NOT NULL AND d.email_id IS NULL
    WINDOW own AS (PARTITION BY d.user_no, d.pace)
) AS found WHERE place <= :shown ORDER BY user_no, pace, place
""").bindparams(bindparam("users", type_=ARRAY(BigInteger)))
_TAKE = text("""
UPDATE deliveries d SET email_id = w.email_id
FROM unnest(:users, :paces, :mails) AS w(user_no, pace, email_id)
WHERE d.user_no = w.user_no AND d.pace = w.pace AND d.channel = 'email' AND d.email_id IS NULL
""")
_CLOSE = text("""
UPDATE digests g SET closed_at = clock_timestamp(), outcome = w.outcome, email_id = w.email_id
FROM unnest(:users, :paces, :mails, :outcomes) AS w(user_no, pace, email_id, outcome)
WHERE g.user_no = w.user_no AND g.pace = w.pace AND g.closed_at IS NULL
""")
_KINDS: dict[str, Any] = {
    "users": ARRAY(BigInteger),
    "paces": ARRAY(Text),
    "mails": ARRAY(PgUUID),
    "outcomes": ARRAY(Text),
}
_TAKE_THEM = _TAKE.bindparams(*(bindparam(name, type_=_KINDS[name]) for name in ("users", "paces", "mails")))
_CLOSE_THEM = _CLOSE.bindparams(*(bindparam(name, type_=kind) for name, kind in _KINDS.items()))

Key = tuple[int, str]


async def send_some(runtime: Runtime, engine: AsyncEngine) -> list[Message] | None:
    """Close some digests that are due, in one transaction; the messages to ring for, None where none is due."""
    settings: Settings = runtime.state["settings"]
    office = Office.of(runtime)
    async with engine.begin() as connection:
        due = list((await connection.execute(_DUE, {"batch": BATCH})).mappings())
        if not due:
            return None
        collected = await _collected(connection, due)
        outcomes = {_key(row): _outcome(row, collected, enabled=settings.mail_send) for row in due}
        mails: dict[Key, Mail] = {}
        for row in due:
            key = _key(row)
            if outcomes[key] != "mailed":
                continue
            if (drafted := await _draft(office, row, collected[key])) is None:
                outcomes[key] = "unreachable"
            else:
                mails[key] = drafted, mail_message(drafted, row["tenant_id"])
        await _store(connection, due, mails)
        await _close(connection, mails, outcomes)
    return [message for _, message in mails.values()]


async def _draft(office: Office, row: RowMapping, items: Sequence[RowMapping]) -> Draft | None:
    """The mail of a digest; None for an address that is none by now.

    One digest must not hold up the others: where the tenant's own template refuses these words, the built-in one has
    them.
    """
    asked = request(row, items)
    for desk in (office.desk(row["tenant_id"]), office.desk(None)):
        try:
            return await desk.draft(asked)
        except ServiceError as error:
            log.warning("digest_refused", user_no=row["user_no"], code=error.code, error=error.detail)
    return None


def request(row: RowMapping | dict[str, Any], items: Sequence[RowMapping | dict[str, Any]]) -> EmailRequest:
    """The mail of a digest. Pure."""
    count = items[0]["items"]
    subject = "1 new notification" if count == 1 else f"{count} new notifications"
    lines = [f"• {one_line(item['data'].get('title')) or words(item['type'])}" for item in items]
    if count > len(items):
        lines.append(f"… and {count - len(items)} more")
    variables = {"subject": subject, "message": "\n".join(lines), "reason": REASONS[row["pace"]]}
    return EmailRequest(
        to=row["email"],
        template=TemplateRef(key="custom", variables=variables, locale=row["locale"]),
        category="digest",
        lane="bulk",
    )


REASONS = {
    "hourly": "You get this mail because you asked for one digest an hour.",
    "daily": "You get this mail because you asked for one digest a day.",
}


def _outcome(row: RowMapping, collected: dict[Key, list[RowMapping]], *, enabled: bool) -> str:
    if _key(row) not in collected:
        return "empty"
    if row["email"] is None:
        return "unreachable"
    if row["suppressed"]:
        return "suppressed"
    return "mailed" if enabled or row["mode"] == "test" else "disabled"


async def _collected(connection: AsyncConnection, due: Iterable[RowMapping]) -> dict[Key, list[RowMapping]]:
    values = {"users": [row["user_no"] for row in due], "shown": SHOWN}
    rows = (await connection.execute(_ITEMS, values)).mappings()
    return {key: list(items) for key, items in groupby(rows, key=_key)}


async def _store(connection: AsyncConnection, due: Sequence[RowMapping], mails: dict[Key, Mail]) -> None:
    def whose(row: RowMapping) -> tuple[UUID, str]:
        return row["tenant_id"], row["mode"]

    for (tenant_id, mode), rows in groupby(sorted(due, key=whose), key=whose):
        mine = [mails[_key(row)] for row in rows if _key(row) in mails]
        await store(connection, mine, tenant_id=tenant_id, mode=mode, request_id=None)


async def _close(
    connection: AsyncConnection,
    mails: dict[Key, Mail],
    outcomes: dict[Key, str],
) -> None:
    taken = list(mails)
    ids = [mails[key][0].id for key in taken]
    values = {"users": [no for no, _ in taken], "paces": [pace for _, pace in taken], "mails": ids}
    await connection.execute(_TAKE_THEM, values)
    every = {
        "users": [no for no, _ in outcomes],
        "paces": [pace for _, pace in outcomes],
        "mails": [mails[key][0].id if key in mails else None for key in outcomes],
        "outcomes": list(outcomes.values()),
    }
    await connection.execute(_CLOSE_THEM, every)


def _key(row: RowMapping) -> Key:
    return row["user_no"], row["pace"]
