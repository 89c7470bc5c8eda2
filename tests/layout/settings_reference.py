"""Writes `.env.example` and docs/settings.md from the settings themselves, and the routes of docs/api.md."""

from dataclasses import MISSING, Field, fields
from typing import Any

from service.settings import Settings
from tests.layout import api_reference
from tests.layout.repository import ROOT

REFERENCE = ROOT / "docs" / "settings.md"

HEAD = """# Settings

Every setting is an environment variable, read once at the start of a process; a wrong value stops the process with a
message that names every fault. Durations are in seconds, sizes in bytes, lists separated by commas, switches `true` or
`false`. `callboard up` sets what its own Postgres, Valkey and mailbox need by itself.

A variable of the environment comes first, then one of the file `.env` in the working directory, then the default.
Every command reads that file, `celery -A service …` too. `ENV_FILE` or `--env-file` names another one; an empty
`ENV_FILE` or `--no-env-file` names none.

These names of earlier systems are understood where ours is not set: `EMAIL_SMTP_HOST`, `EMAIL_SMTP_PORT`, `SMTP_USER`,
`EMAIL_SMTP_USER`, `EMAIL_SMTP_PASSWORD`; `SMTP_USE_TLS` and `EMAIL_USE_TLS` (true: `starttls`, and `tls` on port 465);
`SMTP_FROM_EMAIL`, `SMTP_MAIL_FROM` and `EMAIL_FROM_ADDRESS` as `MAIL_FROM`, with `SMTP_FROM_NAME` or
`EMAIL_FROM_NAME`.

This page and [.env.example](../.env.example) are written from `service/settings.py` and a test compares them.

| variable | default | meaning |
|---|---|---|
"""


def describe() -> str:
    """Render the table of settings as the text of `.env.example`."""
    return "# Every setting, with its default. Durations in seconds, sizes in bytes.\n\n" + "\n\n".join(
        _describe_one(item) for item in fields(Settings)
    )


def _describe_one(item: Field[Any]) -> str:
    names, doc, unit = item.metadata["names"], item.metadata["doc"], item.metadata["unit"]
    default = "" if item.default is MISSING else item.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    shown = str(shown).lower() if isinstance(shown, bool) else shown
    also = f" (also: {', '.join(names[1:])})" if names[1:] else ""
    return f"# {doc}{f' [{unit}]' if unit else ''}{also}\n# {names[0]}={shown}"


def render() -> str:
    """The text of docs/settings.md."""
    return HEAD + "".join(row(item) for item in fields(Settings))


def row(item: Field[Any]) -> str:
    """One line of the table."""
    names, doc, unit = item.metadata["names"], item.metadata["doc"], item.metadata["unit"]
    variable = f"`{names[0]}`" + "".join(f"<br>`{alias}`" for alias in names[1:])
    return f"| {variable} | {shown(item)} | {doc}{f' ({unit})' if unit else ''} |\n"


def shown(item: Field[Any]) -> str:
    """The default of a setting as one writes it in the environment."""
    value = item.default
    if value is MISSING or value in ((), ""):
        return ""
    text = (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return f"`{text}`"


if __name__ == "__main__":
    (ROOT / ".env.example").write_text(describe().rstrip() + "\n", encoding="utf-8")
    REFERENCE.write_text(render(), encoding="utf-8")
    api_reference.write()
