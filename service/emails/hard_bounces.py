"""Addresses that a mail server says are not there, while it is spoken to: a hard bounce that came at once."""

from collections.abc import Iterator, Mapping

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from callboard_workers.runtime import Runtime
from service.db.engine import cause
from service.emails.load import Stored
from service.emails.retry_write import insist
from service.mail.address_text import canonical
from service.smtp import Phase, ServerReply
from service.smtp.reply_rules import classify
from service.suppressions import repository
from service.suppressions.models import Reason
from service.suppressions.repository import Entry

log = structlog.get_logger("service.emails")

DEAD = frozenset({"no_such_user", "mailbox_disabled"})
"""What a 5yz to RCPT must mean; one without a reason, or with a policy's, says nothing about the address."""


async def suppress_dead(stored: Stored, refused: Mapping[str, ServerReply]) -> None:
    """Keep every mail from the recipients of one that are not there; the rest of `refused` stays as it is.

    What becomes of the mail is known by now: what Postgres will not take is logged, and raises nothing.
    """
    entries = list(_dead(stored, refused))
    if not entries:
        return

    async def store() -> None:
        async with AsyncSession(Runtime.of_loop().engine) as session, session.begin():
            await repository.enter(session, stored.tenant_id, stored.mode, entries)

    try:
        await insist(store, "suppression_delayed", stored.id)
    except Exception as error:
        # without Postgres' words: they may name an address
        log.error("suppression_failed", email_id=str(stored.id), error=type(cause(error)).__name__)


def _dead(stored: Stored, refused: Mapping[str, ServerReply]) -> Iterator[Entry]:
    for recipient, reply in refused.items():
        if 500 <= reply.code <= 599 and classify(Phase.RCPT, reply.code, reply.enhanced, reply.text).reason in DEAD:
            yield Entry(
                address=canonical(recipient),
                category=None,
                reason=Reason.HARD_BOUNCE,
                note=f"the server said {reply.code} {reply.enhanced or ''}".rstrip(),
                email_id=stored.id,
            )
