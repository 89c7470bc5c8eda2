"""How sending fails: one error, tagged with the phase it happened in and with what may be done about it."""

import random
from collections.abc import Mapping
from enum import StrEnum

from service.smtp.phases import Phase
from service.smtp.reply import ServerReply


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

    SHORT = "short"  # seconds to minutes: greylisting, a busy mailbox, a lost connection
    NORMAL = "normal"  # the caller's ordinary back-off
    LONG = "long"  # hours: full mailboxes, rate limits
    OPERATOR = "operator"  # minutes, until an operator corrects a setting: credentials, certificates
    NEVER = "never"  # permanent, or ambiguous: not by itself

    def delay(self, attempt: int) -> float | None:
        """Seconds to wait after the `attempt`-th attempt (1 is the first); None for the caller's ordinary back-off.

        The wait doubles with each attempt up to a ceiling, and is drawn from its upper half, so that what failed
        together is not tried again together.
        """
        if (bounds := _DELAYS.get(self)) is None:
            return None
        least, most = bounds
        return random.uniform(0.5, 1.0) * min(most, least * 2.0 ** min(attempt - 1, 30))  # noqa: S311 - jitter


_DELAYS = {Backoff.SHORT: (10.0, 600.0), Backoff.LONG: (1_800.0, 14_400.0), Backoff.OPERATOR: (60.0, 900.0)}
"""The first and the longest wait of each class, in seconds."""


class SmtpError(Exception):
    """A mail was not confirmed.

    `reason` is a stable snake_case word; `code`, `enhanced` and `text` are the server's own, when it spoke.
    `retry_after` is in seconds, when something better than a guess is known. `refused` maps recipients to
    the replies that turned them down: all of them, or some beside others that the server accepted before this error.
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
