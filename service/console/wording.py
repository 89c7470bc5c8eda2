"""Events of emails and requests in plain words: a title, what the server said, and the technical details apart."""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.console.reasons import WORDS, plain_reason
from service.core.errors import ErrorOut
from service.timeline.text import flat, plain

TITLES = {
    "accepted": "Accepted",
    "scheduled": "Scheduled",
    "sending": "Sending",
    "sent": "Sent",
    "deferred": "Deferred",
    "put_off": "Delayed",
    "waiting": "Waiting for the next attempt",
    "failed": "Failed",
    "uncertain": "Outcome unknown",
    "suppressed": "Suppressed",
    "delivered": "Delivered",
    "bounced": "Bounced",
    "complained": "Marked as spam",
    "delayed": "Delivery delayed",
    "unsubscribed": "Recipient unsubscribed",
    "resubscribed": "Recipient subscribed again",
    "requeued": "Requeued",
    "resent": "Sent again",
    "resolved": "Outcome settled",
    "canceled": "Canceled",
    "expired": "Expired",
    "crashed": "Worker crashed",
    "held": "Held: not sent again by itself",
    "request_received": "Request received",
    "task_queued": "Task queued",
    "attempt_started": "Attempt started",
    "attempt_retry": "Attempt failed, tried again later",
    "attempt_snooze": "Attempt delayed",
    "task_done": "Task completed",
    "task_dead": "Task failed",
    "task_requeued": "Task requeued",
    "task_resolved": "Outcome settled",
    "task_uncertain": "Outcome unknown",
    "task_canceled": "Task canceled",
    "task_expired": "Task expired",
}
"""Titles of events; `email_sent` and its like are read without the record's name, any other by its own words."""

TONES = {
    **dict.fromkeys(("sent", "delivered", "task_done", "completed", "done"), "good"),
    **dict.fromkeys(("failed", "bounced", "complained", "task_dead", "crashed", "dead"), "bad"),
    **dict.fromkeys(
        ("deferred", "put_off", "waiting", "delayed", "uncertain", "suppressed", "expired", "held", "unsubscribed",
         "attempt_retry", "task_uncertain", "task_expired"), "warn",
    ),
    **dict.fromkeys(("sending", "attempt_started"), "busy"),
}  # fmt: skip


class Line(msgspec.Struct, frozen=True):
    """An event for a person: its title and tone, sentences, and fields that are shown on demand."""

    title: str
    tone: str
    words: list[str]
    details: list[tuple[str, str]]


def said(error: ErrorOut) -> str:
    """Write what the server said to an email that is not sent, without the code and phase that precede it."""
    code, _, reply = error.detail.partition(": ")
    if code.startswith(f"{error.code} at "):
        return f"The server replied: {reply}." if reply else ""
    return "" if error.detail == error.code else f"{error.detail.rstrip('.')}."


def line(event: str, detail: Mapping[str, Any]) -> Line:
    """Write an event: `sent` of an email's timeline, `email_sent` or `task_done` of a request's."""
    fields = flat(detail)
    record, _, rest = event.partition("_")
    word = rest if record in {"email", "job", "notification", "delivery", "bulk"} and rest else event
    title = TITLES.get(word) or word.replace("_", " ").capitalize()
    if word != event and record != "email":
        title = f"{'Broadcast' if record == 'bulk' else record.capitalize()} {title.lower()}"
    details = [(name.replace("_", " "), plain(value)) for name, value in fields.items()]
    return Line(title, TONES.get(word, "plain"), list(_sentences(word, fields)), details)


def _sentences(word: str, fields: Mapping[str, Any]) -> list[str]:
    """What happened in words: the reason, the server's reply, the error, who did it."""
    said = []
    if (count := fields.get("recipients")) and word == "accepted":
        said.append(f"For {count} recipient{'' if count == 1 else 's'}, with the template {fields['template']}."
                    if fields.get("template") else f"For {count} recipient{'' if count == 1 else 's'}.")  # fmt: skip
    if (route := fields.get("route")) is not None:
        said.append(plain(route))
    reason = fields.get("reason")
    if isinstance(reason, str) and reason in WORDS:
        said.append(f"{plain_reason(reason)}.")
    if (text := fields.get("text") or fields.get("diagnostic")) is not None:
        said.append(f"The server replied: {plain(fields['code']) + ' ' if fields.get('code') else ''}{plain(text)}")
    elif isinstance(fields.get("error"), str) and not said:
        said.append(plain(fields["error"]))
    if fields.get("explanation"):
        said.append("The connection was lost after the email was sent, so the server may or may not have it.")
    if isinstance(fields.get("suppressed"), dict):
        said += [
            f"{plain(to)} is suppressed ({plain(why).replace('_', ' ')})." for to, why in fields["suppressed"].items()
        ]
    if isinstance(fields.get("refused"), dict) and word == "sent":
        said += [f"{plain(to)} was refused: {plain(reply)}" for to, reply in fields["refused"].items()]
    if word in {"requeued", "resolved", "task_requeued", "task_resolved"} and fields.get("by"):
        said.append(f"By {plain(fields['by'])}.")
    return said
