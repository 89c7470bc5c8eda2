"""The six letters as requests, with the variables each cannot do without; `more` are the optional ones.

Each is the same request that the API takes: `entry.enqueue` queues it, `entry.send` sends it at once.
"""

from typing import Literal

from service.emails.schemas import Addresses, EmailRequest
from service.templates.schemas import TemplateRef


def welcome(to: Addresses, *, name: str, **more: str) -> EmailRequest:
    """Greets a new user."""
    return _letter("welcome", to, {"name": name, **more})


def password_reset(to: Addresses, *, action_url: str, **more: str) -> EmailRequest:
    """Leads to where a new password is chosen; goes before other mail."""
    return _letter("password_reset", to, {"action_url": action_url, **more}, lane="critical")


def email_verification(to: Addresses, *, action_url: str, **more: str) -> EmailRequest:
    """Asks to confirm an address; goes before other mail."""
    return _letter("email_verification", to, {"action_url": action_url, **more}, lane="critical")


def course_enrollment(to: Addresses, *, name: str, course_name: str, course_url: str, **more: str) -> EmailRequest:
    """Confirms a place in a course."""
    return _letter(
        "course_enrollment", to, {"name": name, "course_name": course_name, "course_url": course_url, **more}
    )


def certificate(to: Addresses, *, name: str, course_name: str, certificate_url: str, **more: str) -> EmailRequest:
    """Hands over a certificate."""
    given = {"name": name, "course_name": course_name, "certificate_url": certificate_url, **more}
    return _letter("certificate", to, given)


def custom(to: Addresses, *, subject: str, message: str, **more: str) -> EmailRequest:
    """Says anything, as plain text in the house's layout."""
    return _letter("custom", to, {"subject": subject, "message": message, **more})


def _letter(
    key: str, to: Addresses, variables: dict[str, str], lane: Literal["critical", "default"] = "default"
) -> EmailRequest:
    return EmailRequest(to=to, template=TemplateRef(key=key, variables=variables), lane=lane)
