"""What can go wrong before a connection is ready for mail, in one vocabulary. All of it is temporary for the mail."""

import socket

import aiosmtplib

from service.smtp import tls
from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase
from service.smtp.reply import ServerReply, clean
from service.smtp.reply_rules import refusal


def dial_error(phase: Phase, cause: Exception, host: str) -> SmtpError:
    """Return the SmtpError for what the system, TLS or the library raised in one phase."""
    if broken := tls.failure(cause):
        return needs_mending(Phase.CONNECT if phase is Phase.BANNER else phase, *broken)
    if isinstance(cause, aiosmtplib.SMTPResponseException) and cause.code > 0:
        return refusal(phase, ServerReply(cause.code, clean(cause.message)), host)
    if isinstance(cause, socket.gaierror):
        return _plain(phase, "dns_failed", f"{host} was not found: {cause.strerror}")
    if isinstance(cause, TimeoutError):
        return _plain(phase, "timeout", str(cause) or "no answer in time")
    if isinstance(cause, OSError):
        return _plain(phase, "unreachable" if phase is Phase.CONNECT else "connection_lost", clean(str(cause)))
    return _plain(phase, "protocol_error", clean(str(cause)))


def needs_mending(phase: Phase, reason: str, text: str) -> SmtpError:
    """Return the error for a connection that a person must set right."""
    return SmtpError(phase, None, text, Kind.TEMPORARY, reason=reason, backoff=Backoff.OPERATOR)


def _plain(phase: Phase, reason: str, text: str) -> SmtpError:
    return SmtpError(phase, None, text, Kind.TEMPORARY, reason=reason, backoff=Backoff.SHORT)
