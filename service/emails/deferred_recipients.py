"""What the server answers to each RCPT is final, whatever becomes of the dot: stored by the statement of the fence.

A recipient that is deferred beside others that are accepted gets an email of its own, which `follows` the first: the
same bytes, the same Message-ID, only the deferred recipients. The replies, the row of that email and its message are
written by the statement that announces intent (trigger `emails_keep_replies`), before the final dot. So the deferred
are retried, once, however the attempt ends, and a retry or a requeue of the first email serves the others only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from callboard_workers.ledger.rows import spec
from callboard_workers.message import Message
from service.smtp import Kind, Phase, ServerReply
from service.smtp.reply_rules import Verdict, classify

LEAST = 60.0  # seconds until deferred recipients are tried again

Continue = Callable[[float], Message]
"""Makes the message that sends an email's continuation after so many seconds."""


def fence_detail(
    refused: Mapping[str, ServerReply], continuation: Continue, reports: Message | None = None
) -> dict[str, Any] | None:
    """Return what the fence stores of recipients refused beside accepted ones, and of a simulated email; None where
    there is nothing.

    `reports` is put once the email is sent (trigger `emails_put_reports`).
    `replies` holds one entry per refused recipient. `continuation`, where some are deferred, has their addresses and
    the message that sends them their email, as the trigger reads both.
    """
    later = {} if reports is None else {"reports": spec(reports)}
    if not refused:
        return later or None
    verdicts = {address: _verdict(reply) for address, reply in refused.items()}
    deferred = [address for address, verdict in verdicts.items() if verdict.kind is Kind.TEMPORARY]
    message = continuation(_delay([verdicts[address] for address in deferred])) if deferred else None
    found: dict[str, Any] = later | {
        "replies": {
            address: {
                "status": "deferred" if address in deferred else "refused",
                "reply": f"{reply.code} {reply.text}",
                **({"continued_by": message.id} if message is not None and address in deferred else {}),
            }
            for address, reply in refused.items()
        }
    }
    if message is not None:
        found["continuation"] = {"recipients": deferred, "message": spec(message)}
    return found


def _verdict(reply: ServerReply) -> Verdict:
    return classify(Phase.RCPT, reply.code, reply.enhanced, reply.text)


def _delay(verdicts: Sequence[Verdict]) -> float:
    """The wait for the recipient that may be tried again first: they share one email."""
    return max(LEAST, min(verdict.backoff.delay(1) or LEAST for verdict in verdicts))
