"""Why a task failed, in plain words, and which failures need no decision because the address does not exist."""

from typing import Any

from service.emails.hard_bounces import DEAD
from service.emails.models import ACTOR

REASON = "coalesce(m.outcome ->> 'reason', m.error ->> 'type', 'unknown')"
"""The reason of a message `m`: the code that its actor reported, else the type of its error. SQL."""

BOUNCE = f"""coalesce(m.state = 'dead' AND m.actor = '{ACTOR}'
    AND m.outcome ->> 'reason' IN ({", ".join(f"'{reason}'" for reason in sorted(DEAD))}), false)"""
"""Whether a message `m` is an email to an address that does not exist, a hard bounce. SQL."""

WORDS = {
    "no_such_user": "The mailbox does not exist",
    "mailbox_disabled": "The mailbox is disabled",
    "mailbox_full": "The mailbox is full",
    "mailbox_busy": "The mailbox is busy",
    "mailbox_unavailable": "The mailbox is not available",
    "bad_address": "The server does not accept this address",
    "bad_domain": "The domain of the recipient or sender does not exist",
    "greylisted": "Greylisted: the server asks to try again later",
    "rate_limited": "The server limits how much it accepts",
    "too_many_connections": "Too many connections to the server",
    "too_many_recipients": "Too many recipients in one email",
    "message_too_large": "The email is too large for the server",
    "storage_full": "The server has no space left",
    "server_unavailable": "The server is not available",
    "server_error": "The server had an error",
    "deferred": "The server asks to try again later",
    "policy_deferred": "The server's policy asks to try again later",
    "policy_refused": "Refused by the server's policy",
    "refused": "Refused by the server",
    "auth_failed": "The SMTP login failed",
    "auth_required": "The server requires an SMTP login",
    "auth_unavailable": "The server could not check the SMTP login",
    "tls_required": "The server requires TLS",
    "starttls_refused": "The server refused STARTTLS",
    "relay_denied": "The server does not relay for this sender",
    "sender_refused": "The sender address was refused",
    "authentication_policy": "Refused for SPF, DKIM or DMARC",
    "host_blocked": "This server's address is on a block list",
    "content_rejected": "Rejected as spam, malware or for its content",
    "eai_unsupported": "The server does not accept international addresses",
    "protocol_error": "The server broke the SMTP protocol",
    "protocol_refused": "The server does not know a command",
    "content_refused": "The email could not be built from its template or content",
    "sending_disabled": "Sending is disabled (MAIL_SEND is false)",
    "no_such_mail": "The email was deleted before it was sent",
    "no_such_bulk": "The broadcast was deleted",
    "no_such_job": "The job was deleted",
    "no_such_notification": "The notification was deleted",
    "Dead": "The task ended with a final error",
    "Uncertain": "The connection was lost after the email was sent",
    "Quarantined": "Its worker crashed each time it ran",
    "BadArguments": "The task was called with arguments it does not accept",
    "BadResult": "The result cannot be stored",
    "TimeLimitExceeded": "It ran longer than its time limit",
    "no_such_task": "No worker knows a task of this name",
    "unsigned": "It has no valid signature (TASK_SIGNING_KEYS)",
    "attempts_failed": "It failed at every attempt",
    "put_off": "It was put off too often",
    "rejected": "The task rejected its message",
    "unreadable": "The message cannot be read",
    "unknown": "No reason was recorded",
}

BURIED = {
    "no task is named": "no_such_task",
    "its worker died": "Quarantined",
    "broke ": "Quarantined",
    "it bears no signature": "unsigned",
    "arguments do not fit": "BadArguments",
    "the result does not fit": "BadResult",
    "the actor throws it": "Dead",
    "gave up after": "attempts_failed",
    "snoozed": "put_off",
    "rejected": "rejected",
}
"""The code of a reason that a worker gives in Redis, by how the reason begins."""


def buried_reason(text: str) -> str:
    """Return the code of the reason of a task that only Redis keeps; any other reason is of an unreadable message."""
    return next((code for beginning, code in BURIED.items() if text.startswith(beginning)), "unreadable")


def plain_reason(code: Any) -> str:
    """Write a reason in plain words: those above, else the code with spaces."""
    text = str(code or "unknown")
    if (known := WORDS.get(text)) is not None:
        return known
    return text.replace("_", " ").capitalize() if "_" in text else text
