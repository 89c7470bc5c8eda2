"""The test mail that `POST /send-test-email` queues."""

import msgspec

from service.core.errors import Fault, Invalid
from service.emails import builtin_emails
from service.emails.schemas import EmailRequest
from service.emails.simulator import DOMAIN
from service.mail.addresses import Address, AddressRefused, parse_address
from service.web import Request
from service.web.json_body import decode


class TrialEmailRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body, which may be left out."""

    to: str | None = None


class TrialEmailOut(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: words for a person, and the id of the task."""

    message: str
    task_id: str


async def read_trial(request: Request, email_to: str | None) -> TrialEmailRequest:
    """Read whom the test email is for: from the query, or from the body, if there is one. Raises Invalid for both."""
    body = await request.body()
    if not body:
        return TrialEmailRequest(to=email_to)
    request.check_media()
    found = decode(body, TrialEmailRequest)
    if email_to is None:
        return found
    if found.to is not None:
        raise Invalid([Fault("/to", "`email_to` in the address says it already: give one of them.")])
    return TrialEmailRequest(to=email_to)


def default_recipient(sender: Address, *, mailbox: bool) -> str:
    """Return the address for a request that names none: the service's sender.

    A sender that only this machine knows, as `callboard@localhost`, receives no email. Where the mail server is the
    development mailbox, the simulator's `delivered@` replaces it.
    """
    if mailbox:
        try:
            parse_address(sender.addr_spec)
        except AddressRefused:
            return f"delivered@{DOMAIN}"
    return sender.addr_spec


def trial_letter(to: str) -> EmailRequest:
    """The test mail to one address."""
    return builtin_emails.custom(
        to,
        subject="Test email",
        message="This mail came by POST /send-test-email: the queue, a worker and the mail server work.",
    )
