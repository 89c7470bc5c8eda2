"""Which mails their reader may unsubscribe from. Pure."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from service.core.errors import Fault


class Template(Protocol):
    """The template of an email, by its key."""

    @property
    def key(self) -> str: ...


class Request(Protocol):
    """The fields of an email request that decide."""

    @property
    def lane(self) -> str: ...

    @property
    def category(self) -> str | None: ...

    @property
    def unsubscribe(self) -> bool | None: ...

    @property
    def template(self) -> Template | None: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


NEVER = frozenset({"password_reset", "email_verification"})
"""Templates that carry no such link: somebody waits for these mails."""


def unsubscribable(request: Request, recipients: int) -> bool:
    """Tell whether a mail gets a link to unsubscribe: where it says so, and in the bulk lane unless it says no."""
    if request.unsubscribe is not None:
        return request.unsubscribe
    return request.lane == "bulk" and not any(_obstacles(request, recipients))


def unsubscribe_faults(request: Request, recipients: int) -> Iterator[Fault]:
    """What speaks against the link that a request asks for."""
    if request.unsubscribe:
        for reason in _obstacles(request, recipients):
            yield Fault("/unsubscribe", reason)


def _obstacles(request: Request, recipients: int) -> Iterator[str]:
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
