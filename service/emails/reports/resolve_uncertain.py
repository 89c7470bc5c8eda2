"""Resolves a mail that is in doubt by what a server reports of it later: a bounce, or a delivery report (RFC 3464).

Any report on a mail proves that the server took it. What it says decides the rest: failed for everybody the mail was
for, it is failed; otherwise it is sent.
"""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.ledger.operations import resolve as settle
from callboard_workers.ledger.schema import State
from service.emails.models import OPEN

Action = Literal["delivered", "relayed", "expanded", "delayed", "failed"]

# A mail's id is in its Message-ID; those that follow it, for recipients that were put off, bear the same one.
IN_DOUBT = text(f"""
SELECT e.id, {OPEN} AS recipients FROM emails e JOIN messages m ON m.id = e.id
WHERE (e.id = :id OR (e.follows IS NOT NULL AND e.message_id = :message_id))
    AND m.state IN ('uncertain', 'held') AND (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id)
ORDER BY e.id
""")  # noqa: S608 (our own SQL)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one report says of one recipient. It names the mail by its Message-ID, or by the ENVID it was sent with.

    `recipient` is an addr-spec, the original one where the report has it; None: the report is about all of them.
    `status` is an enhanced status code (RFC 3463).
    """

    action: Action
    message_id: str | None = None
    envid: str | None = None
    recipient: str | None = None
    status: str = ""
    diagnostic: str = ""

    def told(self) -> dict[str, object]:
        """The fields that are set, for the record."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name))}


class Resolved(msgspec.Struct, frozen=True):
    """A mail that was in doubt and is not any more: it is DONE, or DEAD."""

    email_id: UUID
    state: State


async def resolve(
    connection: AsyncConnection, evidence: Evidence, *, by: str, tenant_id: UUID | None = None
) -> Resolved | None:
    """Resolve, in the caller's transaction, the mail that a report is about; None where no such mail is in doubt.

    `by` is who brought it, for the record; `tenant_id` narrows it to the mails of one tenant.
    """
    id = mail_id(evidence)
    values = {"id": id, "message_id": evidence.message_id, "tenant_id": tenant_id}
    found = (await connection.execute(IN_DOUBT, values)).mappings().all()
    mail = _meant(found, evidence)
    if mail is None:
        return None
    state = State.DEAD if _failed(evidence, mail["recipients"]) else State.DONE
    moved = await settle(
        connection,
        [mail["id"]],
        state,
        by=by,
        reason=f"the report says: {evidence.action}",
        outcome={"reason": "bounced" if state is State.DEAD else "reported", **evidence.told()},
        error={"type": "Bounced", "message": _words(evidence)} if state is State.DEAD else None,
    )
    return Resolved(mail["id"], state) if moved else None


def mail_id(evidence: Evidence) -> UUID | None:
    """The id of the mail that is named: `em_…`, or what stands before the @ of the Message-ID; None for others'."""
    for name in (evidence.envid, (evidence.message_id or "").strip().lstrip("<").partition("@")[0]):
        try:
            return UUID((name or "").rpartition("_")[2])
        except ValueError:
            continue
    return None


def _meant(mails: Sequence[RowMapping], evidence: Evidence) -> RowMapping | None:
    if evidence.recipient is not None:
        mails = [mail for mail in mails if _is_for(evidence.recipient, mail["recipients"])]
    return mails[0] if mails else None


def _failed(evidence: Evidence, recipients: list[str]) -> bool:
    """Whether it failed for everybody that the mail was for."""
    return evidence.action == "failed" and (evidence.recipient is None or len(recipients) == 1)


def _is_for(recipient: str, recipients: list[str]) -> bool:
    return recipient.casefold() in {each.casefold() for each in recipients}


def _words(evidence: Evidence) -> str:
    return ": ".join(filter(None, (evidence.status, evidence.diagnostic))) or "it bounced"
