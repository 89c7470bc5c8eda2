"""Stores many mails and their messages in one statement, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.ledger import rows
from callboard_workers.message import Message
from service.db.bulk_insert import Table
from service.emails.attachment_store import keep
from service.emails.dedup_window import release
from service.emails.insert_columns import COLUMNS, row
from service.emails.prepare import Draft

TABLE = Table("emails", COLUMNS)

STORE = f"""
WITH stored AS (
    INSERT INTO emails ({", ".join(name for name, _ in COLUMNS)}) {TABLE.select(1)}
    ON CONFLICT DO NOTHING RETURNING id
),
queued AS ({rows.INSERT} {rows.SELECT} {rows.unnest(len(COLUMNS) + 1)} WHERE m.id IN (SELECT id FROM stored))
SELECT id FROM stored
"""  # noqa: S608 (names of our own columns)

STATEMENT_CHARACTERS = 2 * 1024 * 1024
"""Of the emails that one statement stores, and one email more."""
RECIPIENT_CHARACTERS = 200

Mail = tuple[Draft, Message]
"""A mail that is to be stored, and the message of the same id that sends it."""


async def store(
    connection: AsyncConnection,
    mails: Sequence[Mail],
    *,
    tenant_id: UUID,
    mode: str,
    request_id: str | None,
    patience: float | None = None,
) -> set[UUID]:
    """Store mails with their messages; the ids that are new.

    Left out: a mail whose `dedup_key` another one bears, in the table or before it in the list, or whose recipient
    its bulk has served. Nothing is rung for: that is the caller's, after its commit. `patience`: see files.keep.
    """
    if not mails:
        return set()
    await keep(connection, tenant_id, [file for draft, _ in mails for file in draft.files], patience)
    await release(connection, tenant_id, [draft.dedup_key for draft, _ in mails if draft.dedup_key is not None])
    new: set[UUID] = set()
    for some in _statements(mails):
        records = [row(draft, tenant_id, mode, request_id) for draft, _ in some]
        messages = rows.columns([rows.row(message) for _, message in some])
        found = await connection.exec_driver_sql(STORE, (*TABLE.arrays(records), *messages))
        new |= set(found.scalars())
    return new


def _weight(draft: Draft) -> int:
    recipients = len(draft.to) + len(draft.cc) + len(draft.bcc)
    return len(draft.html or "") + len(draft.text or "") + RECIPIENT_CHARACTERS * recipients


def _statements(mails: Sequence[Mail]) -> Iterator[list[Mail]]:
    """Cut emails into what one statement stores: its values are encoded in one go, while the event loop waits."""
    some, size = list[Mail](), 0
    for mail in mails:
        some.append(mail)
        size += _weight(mail[0])
        if size > STATEMENT_CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some
