"""The page behind a link to unsubscribe, without a script, in four states. Pure."""

import functools
from enum import StrEnum
from pathlib import Path

import jinja2

from service.suppressions.matching import BULK


class State(StrEnum):
    """`asked`: a link was opened; `gone`: unsubscribed; `back`: subscribed again; `unknown`: not a link of ours."""

    ASKED = "asked"
    GONE = "gone"
    BACK = "back"
    UNKNOWN = "unknown"


TITLES = {
    State.ASKED: "Unsubscribe from these emails?",
    State.GONE: "You are unsubscribed",
    State.BACK: "You are subscribed again",
    State.UNKNOWN: "This link does not work",
}
WORDS = {
    State.ASKED: "{sender} will stop sending {kind} to {address}.",
    State.GONE: "{sender} no longer sends {kind} to {address}. One that is already on its way may still arrive.",
    State.BACK: "{sender} sends {kind} to {address} again.",
}
BULK_EMAILS = "newsletters, announcements and other bulk emails without a category of their own"
OTHERS = "All other emails {still} sent to you, such as receipts and password resets{kinds}."
OTHER_KINDS = ", and bulk emails that have a category of their own"


def page(state: State, *, topic: str = "", address: str = "", sender: str = "") -> str:
    """Write the page, which names exactly the emails that stop: those of the category `topic`.

    `topic` is `bulk` for bulk emails without a category; `sender` is who sends them, where that is known.
    """
    is_bulk = topic == BULK
    kind = BULK_EMAILS if is_bulk else f"emails of the category “{topic}”"
    words = WORDS.get(state, "").format(sender=sender or "The sender of that email", kind=kind, address=address)
    still = "will still be" if state is State.ASKED else "are still"
    others = OTHERS.format(still=still, kinds=OTHER_KINDS if is_bulk else "") if state is not State.BACK else ""
    return _template().render(state=state.value, title=TITLES[state], words=words, others=others)


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("page.html")
