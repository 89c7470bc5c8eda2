"""Mail that never leaves the machine: recipients of a reserved domain whose name says what is to become of the mail.

`delivered@ bounced@ complained@ deferred@ refused@ simulator.callboard.test`, each also with a suffix (`bounced+7@…`),
so that one test tells its mails apart. Pure: the same mail at the same attempt always gets the same reply.
"""

from collections.abc import Sequence

import msgspec

from service.emails.reports.report import Report
from service.smtp import Phase, Reply, ServerReply
from service.smtp.reply_rules import refusal

DOMAIN = "simulator.callboard.test"
LATER = {
    "delivered": Report(action="delivered", key="", source="simulator", stated=True),
    "bounced": Report(
        action="bounced",
        key="",
        status="5.1.1",
        diagnostic="550 5.1.1 simulated: no such user",
        source="simulator",
        stated=True,
    ),
    "complained": Report(action="complained", key="", source="simulator", stated=True),
}
"""What receivers report of a mail they took, by the word; `inbound.simulated` names the mail and makes the key."""
DEFERRALS = 2  # attempts that deferred@ turns away before it takes the mail

_REFUSED = ServerReply(550, "5.1.1 simulated: no such user")
_DEFERRED = ServerReply(451, "4.7.1 simulated: greylisted, try again")


def is_simulated(mode: str, recipients: Sequence[str]) -> bool:
    """Whether an email of this mode to these recipients is simulated: one of a test key, or for the simulator only."""
    return mode != "live" or all(recipient.endswith(f"@{DOMAIN}") for recipient in recipients)


def simulate(recipients: Sequence[str], attempt: int) -> Reply:
    """Answer for the server: any recipient's magic word counts, all others accept.

    Raises SmtpError: temporary for `deferred@` at its first two attempts, permanent when nobody but `refused@` is left.
    """
    words = {recipient: magic(recipient) for recipient in recipients}
    if "deferred" in words.values() and attempt <= DEFERRALS:
        raise refusal(Phase.RCPT, _DEFERRED, DOMAIN)
    refused = {recipient: _REFUSED for recipient, word in words.items() if word == "refused"}
    if len(refused) == len(words):
        raise refusal(Phase.RCPT, _REFUSED, DOMAIN, refused)
    accepted = tuple(recipient for recipient in recipients if recipient not in refused)
    return Reply(code=250, text="2.0.0 simulated: accepted", host=DOMAIN, accepted=accepted, refused=refused)


def reports(recipients: Sequence[str]) -> list[Report]:
    """Return what these recipients report of an email after they accepted it; most report nothing."""
    later = ((recipient, LATER.get(magic(recipient) or "")) for recipient in recipients)
    return [msgspec.structs.replace(report, recipient=recipient) for recipient, report in later if report]


def magic(recipient: str) -> str | None:
    """The magic word of a recipient of the simulator, else None."""
    local, _, domain = recipient.rpartition("@")
    return local.partition("+")[0].lower() if domain == DOMAIN else None
