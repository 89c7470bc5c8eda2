"""The steps on the way to a mail server, as a person wants to read them: what, how long, how to mend it."""

from collections.abc import Callable

import msgspec

from service.smtp.errors import SmtpError


class Step(msgspec.Struct, frozen=True):
    """One step: its time in seconds, what came of it, and how to mend it if it failed."""

    name: str
    ok: bool
    seconds: float
    detail: str
    mend: str = ""


OnStep = Callable[[Step], None]

_MEND = {
    "dns_failed": "Check SMTP_HOST: the name does not resolve from this machine.",
    "unreachable": "Check SMTP_HOST and SMTP_PORT, that the server runs, and that no firewall is in between.",
    "timeout": "The server accepts but does not answer: check SMTP_PORT, firewalls (port 25 is often blocked) and "
    "whether SMTP_TLS fits the port (465: tls, 587: starttls).",
    "connection_lost": "The server hung up: check whether SMTP_TLS fits the port (465: tls, 587: starttls).",
    "protocol_error": "What answers there does not speak SMTP: check SMTP_PORT and SMTP_TLS (465: tls, 587: starttls).",
    "tls_certificate": "Use the host name the certificate is for in SMTP_HOST, or install its authority; "
    "SMTP_VERIFY=false only against a server of your own.",
    "tls_failed": "Check that SMTP_TLS fits the port: 465 is tls, 587 is starttls, and that the server has TLS 1.2.",
    "starttls_missing": "Use the port that offers it (587), or SMTP_TLS=tls on 465. If it used to be offered, "
    "somebody may be stripping it.",
    "starttls_injection": "Do not send from this network until you know who is in the middle.",
    "auth_failed": "Check SMTP_USERNAME and SMTP_PASSWORD (some providers want an app password or an API key).",
    "auth_needs_tls": "Set SMTP_TLS=starttls or tls: the server offers only methods that would show the password.",
    "auth_unsupported": "Empty SMTP_USERNAME if the server needs none, or use its submission port (587).",
    "auth_required": "Set SMTP_USERNAME and SMTP_PASSWORD.",
    "tls_required": "Set SMTP_TLS=starttls.",
    "too_many_connections": "Lower SMTP_POOL_SIZE or the number of workers.",
    "sender_refused": "Check MAIL_FROM: the server does not let this sender through.",
}


def mend(error: SmtpError) -> str:
    """Say what to do about an error, in a sentence."""
    return _MEND.get(error.reason, "Ask whoever runs the mail server; the text above is its own.")
