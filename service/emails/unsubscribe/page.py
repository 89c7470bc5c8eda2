"""What a reader sees behind a link to unsubscribe: one page without a script, in four states. Pure."""

import functools
from enum import StrEnum
from pathlib import Path

import jinja2


class State(StrEnum):
    """`asked`: a link was opened; `gone`: no more mails; `back`: mails again; `unknown`: not a link of ours."""

    ASKED = "asked"
    GONE = "gone"
    BACK = "back"
    UNKNOWN = "unknown"


TITLES = {
    State.ASKED: "Stop getting these mails?",
    State.GONE: "You are unsubscribed",
    State.BACK: "You get these mails again",
    State.UNKNOWN: "This link does not work",
}
WORDS = {
    State.ASKED: "{kind} will no longer be sent to {address}.",
    State.GONE: "{kind} will no longer be sent to {address}. One that is on its way already may still arrive.",
    State.BACK: "{kind} will be sent to {address} as before.",
}


def page(state: State, *, topic: str = "", address: str = "", sender: str = "") -> str:
    """Write the page; `topic` is the kind of mail, `sender` whoever sends it, where that is known."""
    kind = "Mail" if topic == "bulk" else f"Mail of the kind “{topic}”"
    kind = f"{kind} from {sender}" if sender else kind
    words = WORDS.get(state, "").format(kind=kind, address=address)
    return _template().render(state=state.value, title=TITLES[state], words=words)


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("page.html")
