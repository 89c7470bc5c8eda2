"""When a server takes a mail for some of its recipients and puts others off, those others get a mail of their own.

The first mail is sent: it cannot be sent again without a second copy for whoever has it. What is left is a new row that
follows it: the same bytes, the same Message-ID, only the recipients that still wait.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from service.emails.doubt import doubt
from service.emails.files import keep_again
from service.emails.insisting import insist
from service.emails.smtp import Reply
from service.emails.stored import Stored
from workers.message import Message
from workers.runtime import Runtime

_SAME = """tenant_id, mode, lane, category, message_id, sender, to_, cc, bcc, reply_to, subject, html, text,
    template_key, template_locale, template_version, template_variables, headers, tags, metadata, attachments,
    attachment_data, expires_at, request_id, created_at, unsubscribable"""
STORE = text(f"""
INSERT INTO emails (id, follows, recipients, {_SAME})
SELECT :id, id, :recipients, {_SAME} FROM emails WHERE id = :follows
ON CONFLICT (id) DO NOTHING
""")  # noqa: S608 (names of our own columns)


def put_off(reply: Reply) -> list[str]:
    """The recipients that may be accepted later."""
    return [recipient for recipient, said in reply.refused.items() if 400 <= said.code < 500]


async def follow(stored: Stored, recipients: Sequence[str], message: Message) -> None:
    """Store the rest of a mail and `message`, which is to send it, in one transaction of their own.

    The first mail is out already, so this tries until Postgres answers; storing twice stores once.
    """

    async def store() -> None:
        await _store(stored, recipients, message)

    await insist(store, "followup_delayed", stored.id)


async def _store(stored: Stored, recipients: Sequence[str], message: Message) -> None:
    runtime = Runtime.of_loop()
    assert runtime.engine is not None  # noqa: S101 - a mail was loaded from it
    values = {"id": message.id, "follows": stored.id, "recipients": list(recipients)}
    async with AsyncSession(runtime.engine) as session, session.begin():
        await keep_again(session, stored.id)
        await session.execute(STORE, values)
        await runtime.enqueue(session, msgspec.structs.replace(message, uncertain=await doubt(session, stored.id)))
