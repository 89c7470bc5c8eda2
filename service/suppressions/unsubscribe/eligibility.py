"""Which mails their reader may unsubscribe from. Pure."""

from collections.abc import Iterator

from service.core.errors import Fault
from service.emails.schemas import EmailRequest

NEVER = frozenset({"password_reset", "email_verification"})
"""Templates that carry no such link: somebody waits for these mails."""


def unsubscribable(request: EmailRequest, recipients: int) -> bool:
    """Tell whether a mail gets a link to unsubscribe: where it says so, and in the bulk lane unless it says no."""
    if request.unsubscribe is not None:
        return request.unsubscribe
    return request.lane == "bulk" and not any(_obstacles(request, recipients))


def unsubscribe_faults(request: EmailRequest, recipients: int) -> Iterator[Fault]:
    """What speaks against the link that a request asks for."""
    if request.unsubscribe:
        for reason in _obstacles(request, recipients):
            yield Fault("/unsubscribe", reason)


def _obstacles(request: EmailRequest, recipients: int) -> Iterator[str]:
    if request.lane == "critical":
        yield "a critical mail cannot be unsubscribed from; use another lane or leave this field away."
    if request.category is None and request.lane != "bulk":
        yield "unsubscribe from what? Name a category, or use the bulk lane."
    if request.template is not None and request.template.key in NEVER:
        yield f"nobody unsubscribes from {request.template.key}; leave this field away."
    if recipients > 1:
        yield "the link is one reader's: send a mail for each of them."
    if any(name.lower().startswith("list-unsubscribe") for name in request.headers):
        yield "the mail has a List-Unsubscribe header of its own already; leave one of them away."
