"""The words of the console around a step: the question before one that cannot be undone, the message after it."""

from collections.abc import Mapping, Sequence

import msgspec

from callboard_workers.ledger.operations import Canceling

CONFIRMED = "confirmed"
"""The field that a question page adds to a form."""

MESSAGES: dict[str, str | tuple[str, str]] = {
    "canceled": "Canceled.",
    "broadcast-canceled": (
        "Broadcast canceled: 1 email will not be sent.",
        "Broadcast canceled: {n} emails will not be sent.",
    ),
    "paused": "Paused. Emails that have not started wait until you resume the broadcast.",
    "resumed": "Resumed.",
    "cancel-requested": "Cancel requested. The worker stops the running attempt within seconds, unless it ends first.",
    "too-late": "Not canceled: it has ended, or has passed the point where it can be stopped.",
    "requeued": ("Requeued. 1 task waits for its next attempt.", "Requeued. {n} tasks wait for their next attempt."),
    "partly-requeued": (
        "Requeued 1 of {of} tasks. The others had changed in the meantime.",
        "Requeued {n} of {of} tasks. The others had changed in the meantime.",
    ),
    "settled": ("Marked 1 email.", "Marked {n} emails."),
    "removed": ("Marked 1 task as done.", "Marked {n} tasks as done."),
    "resent": "Sent as a new email. This page shows the copy, which has an id of its own.",
    "under-way": "No copy was sent: the email is still waiting or being sent.",
    "switched": "You are now acting for another tenant. Everything you do here applies to it.",
    "nothing": "Nothing changed: nothing was selected, or it had changed in the meantime.",
    "delivered": "Marked as delivered.",
    "not-delivered": "Marked as not delivered.",
    "redelivered": "The event is delivered again.",
    "enabled": "Endpoint enabled.",
    "disabled": (
        "Endpoint disabled. 1 waiting delivery was canceled.",
        "Endpoint disabled. {n} waiting deliveries were canceled.",
    ),
    "tested": "Test event queued. It appears below within seconds.",
    "unsuppressed": "Suppression removed. New emails to this address are sent again.",
}
"""What a page says after a form: one sentence, or a pair for one and for several."""

CANCELED = {Canceling.CANCELED: "canceled", Canceling.REQUESTED: "cancel-requested"}
"""The message for the result of a cancellation; any other is `too-late`."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A step to confirm: `words` say exactly what happens, `fields` are sent again with the confirmation."""

    title: str
    words: Sequence[str]
    action: str
    label: str
    back: str
    keep: str = "Go back"
    fields: Sequence[tuple[str, str]] = ()
    danger: bool = True


def confirmed(asked: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a form comes from a question page."""
    return list(asked.get(CONFIRMED, [])) == ["yes"]


def message(query: Mapping[str, str]) -> str | None:
    """Return the message that an address names by `done`, with the numbers in `n` and `of`; None without one."""
    found = MESSAGES.get(query.get("done", ""))
    if found is None or isinstance(found, str):
        return found
    n, of = (_number(query.get(name, "")) for name in ("n", "of"))
    return found[n != 1].format(n=f"{n:,}", of=f"{of:,}")


def many(number: int, one: str, several: str = "") -> str:
    """Write a count with its noun: `1 email`, `1,200 emails`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
