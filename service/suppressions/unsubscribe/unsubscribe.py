"""What a reader's word changes: a suppression, and an event of the mail that held the link."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from service.mail.address_text import read_back
from service.suppressions import repository
from service.suppressions.models import Reason
from service.suppressions.repository import Entry
from service.suppressions.unsubscribe.links import Reader

LIFT = text("""
DELETE FROM suppressions
WHERE tenant_id = :tenant_id AND mode = :mode AND address = :address AND category = :topic AND reason = 'unsubscribe'
RETURNING id
""")
STANDS = text("""
SELECT EXISTS (
    SELECT FROM suppressions
    WHERE tenant_id = :tenant_id AND mode = :mode AND address = :address AND category = :topic
        AND reason = 'unsubscribe'
) AS gone, (SELECT sender FROM emails WHERE id = :email_id AND tenant_id = :tenant_id) AS sender
""")
NOTE = text("""
INSERT INTO email_events (id, tenant_id, email_id, key, event, address, at)
SELECT :id, tenant_id, id, :key, :event, :address, clock_timestamp() FROM emails
WHERE id = :email_id AND tenant_id = :tenant_id
""")


async def standing(session: AsyncSession, reader: Reader) -> tuple[bool, str]:
    """Tell whether the reader has unsubscribed, and who sent the mail, as a person knows them; empty if forgotten."""
    row = (await session.execute(STANDS, _values(reader))).one()
    sender = read_back(row.sender) if row.sender else None
    return row.gone, (sender.name or sender.addr_spec) if sender else ""


async def unsubscribe(session: AsyncSession, reader: Reader) -> None:
    """Keep mail of this kind from the reader; again changes nothing."""
    entry = Entry(address=reader.address, category=reader.topic, reason=Reason.UNSUBSCRIBE, email_id=reader.email_id)
    if await repository.enter(session, reader.tenant_id, reader.mode, [entry]):
        await _note(session, reader, "unsubscribed")


async def resubscribe(session: AsyncSession, reader: Reader) -> None:
    """Take it back: what the reader said, not what a bounce, a complaint or the tenant did."""
    if (await session.execute(LIFT, _values(reader))).all():
        await _note(session, reader, "resubscribed")


async def _note(session: AsyncSession, reader: Reader, event: str) -> None:
    id = uuid7()
    await session.execute(NOTE, {**_values(reader), "id": id, "key": f"{event}:{id}", "event": event})


def _values(reader: Reader) -> dict[str, object]:
    return {name: getattr(reader, name) for name in reader.__struct_fields__}
