"""Mail that never leaves the machine: recipients of a reserved domain whose name says what is to become of the mail.

`delivered@ bounced@ complained@ deferred@ simulator.callboard.test`, each also with a suffix (`bounced+7@…`), so that
one test tells its mails apart. Pure: the same mail at the same attempt always gets the same reply.
"""

from collections.abc import Sequence

import msgspec

from service.emails.smtp import Phase, Reply, ServerReply, SmtpError
from service.emails.smtp.classify import refusal

DOMAIN = "simulator.callboard.test"
DEFERRALS = 2  # attempts that deferred@ turns away before it takes the mail

_BOUNCED = ServerReply(550, "5.1.1 simulated: no such user")
_DEFERRED = ServerReply(451, "4.7.1 simulated: greylisted, try again")


class Simulated(msgspec.Struct, frozen=True):
    """A simulated yes; `evidence` is what a receiver would have said later: `complained`, or None."""

    reply: Reply
    evidence: str | None


def is_simulated(recipients: Sequence[str]) -> bool:
    """Whether every recipient is the simulator's."""
    return all(recipient.endswith(f"@{DOMAIN}") for recipient in recipients)


def simulate(recipients: Sequence[str], attempt: int) -> Simulated:
    """Answer for the server: any recipient's magic word counts, all others accept.

    Raises SmtpError: temporary for `deferred@` at its first two attempts, permanent when nobody but `bounced@` is left.
    """
    words = {recipient: magic(recipient) for recipient in recipients}
    if "deferred" in words.values() and attempt <= DEFERRALS:
        raise _refused(Phase.RCPT, _DEFERRED)
    refused = {recipient: _BOUNCED for recipient, word in words.items() if word == "bounced"}
    if len(refused) == len(words):
        raise _refused(Phase.RCPT, _BOUNCED)
    accepted = tuple(recipient for recipient in recipients if recipient not in refused)
    reply = Reply(code=250, text="2.0.0 simulated: accepted", host=DOMAIN, accepted=accepted, refused=refused)
    return Simulated(reply, "complained" if "complained" in words.values() else None)


def magic(recipient: str) -> str | None:
    """The magic word of a recipient of the simulator, else None."""
    local, _, domain = recipient.rpartition("@")
    return local.partition("+")[0].lower() if domain == DOMAIN else None


def _refused(phase: Phase, reply: ServerReply) -> SmtpError:
    return refusal(phase, reply, DOMAIN)
