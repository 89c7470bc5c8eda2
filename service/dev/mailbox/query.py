"""The search language, as in Mailpit: words, ``"phrases"``, ``from:``, ``is:unread``, ``-not``."""

import re
from dataclasses import dataclass

FIELDS = {
    "from": "sender",
    "to": "recipient",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "reply_to",
    "subject": "subject",
    "message-id": "message_id",
}
FLAGS = {
    ("is", "read"): "read = 1",
    ("is", "unread"): "read = 0",
    ("has", "attachment"): "attachments > 0",
    ("has", "attachments"): "attachments > 0",
}
TERM = re.compile(r"""(?P<no>[-!]?)(?:(?P<field>[a-z-]+):)?(?:"(?P<phrase>[^"]*)"|(?P<word>\S+))""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of a WHERE clause with its parameters."""

    sql: str
    parameters: tuple[str, ...] = ()


def conditions(query: str) -> list[Condition]:
    """What every mail found must fulfil; none for an empty query."""
    return [condition(match) for match in TERM.finditer(query)]


def condition(match: re.Match[str]) -> Condition:
    field = (match["field"] or "").lower()
    value = (match["phrase"] if match["phrase"] is not None else match["word"]).casefold()
    if (field, value) in FLAGS:
        found = Condition(FLAGS[field, value])
    elif field in FIELDS:
        found = contains(FIELDS[field], value)
    else:
        found = contains("search", f"{field}:{value}" if field else value)
    return Condition(f"NOT ({found.sql})", found.parameters) if match["no"] else found


def contains(column: str, text: str) -> Condition:
    return Condition(f"instr({column}, ?) > 0", (text,))
