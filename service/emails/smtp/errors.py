"""How sending fails: one error, tagged with the phase it happened in and with what may be done about it."""

from collections.abc import Mapping
from enum import StrEnum

from service.emails.smtp.phases import Phase
from service.emails.smtp.reply import ServerReply


class Kind(StrEnum):
    """What is known about a mail that was not confirmed.

    `temporary` and `permanent` are definite: the server does not have the mail. `ambiguous` is not: the final dot
    was written and no definite reply came, so the server may have it.
    """

    TEMPORARY = "temporary"
    PERMANENT = "permanent"
    AMBIGUOUS = "ambiguous"


class Backoff(StrEnum):
    """How long to leave a temporary failure alone before trying again."""

    SHORT = "short"  # minutes: greylisting, a busy mailbox, a lost connection
    NORMAL = "normal"  # the caller's ordinary back-off
    LONG = "long"  # hours: full mailboxes, rate limits
    OPERATOR = "operator"  # until somebody mends a setting: credentials, certificates
    NEVER = "never"  # permanent, or ambiguous: not by itself


class SmtpError(Exception):
    """A mail was not confirmed.

    `reason` is a stable snake_case word; `code`, `enhanced` and `text` are the server's own, when it spoke.
    `retry_after` is in seconds, when something better than a guess is known. `refused` maps recipients to replies
    when every one of several was turned down.
    """

    def __init__(
        self,
        phase: Phase,
        code: int | None,
        text: str,
        kind: Kind,
        *,
        enhanced: str | None = None,
        reason: str = "refused",
        backoff: Backoff = Backoff.NORMAL,
        host: str | None = None,
        retry_after: float | None = None,
        refused: Mapping[str, ServerReply] | None = None,
    ) -> None:
        super().__init__(phase, code, text, kind)
        self.phase = phase
        self.code = code
        self.enhanced = enhanced
        self.text = text
        self.kind = kind
        self.reason = reason
        self.backoff = backoff
        self.host = host
        self.retry_after = retry_after
        self.refused: Mapping[str, ServerReply] = refused or {}

    def __str__(self) -> str:
        said = f"{self.code} {self.text}" if self.code is not None else self.text
        return f"{self.kind} at {self.phase} ({self.reason}): {said}"

    def detail(self) -> dict[str, str | int | float | None]:
        """Return the error as JSON-ready fields, for the record of the attempt; no address in it."""
        return {
            "phase": self.phase.value,
            "code": self.code,
            "enhanced": self.enhanced,
            "text": self.text,
            "kind": self.kind.value,
            "reason": self.reason,
            "host": self.host,
            "retry_after": self.retry_after,
        }
