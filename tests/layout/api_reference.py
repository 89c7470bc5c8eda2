"""Writes the routes of docs/api.md from the application itself; run it as a module."""

from typing import Any

from service.app import create_app
from service.settings import Settings
from service.web.openapi import ERRORS, complete, groups
from tests.layout.repository import ROOT

REFERENCE = ROOT / "docs" / "api.md"
MARK = "<!-- From here on written from the code: python3 start run python -m tests.layout.api_reference -->\n"


def document() -> dict[str, Any]:
    """The OpenAPI document that a running service shows."""
    app: Any = create_app(Settings.from_env({"SECRET_KEY": "of a reference only"}))
    while not hasattr(app, "openapi_schema"):
        app = app.app
    return complete(app, app.openapi_schema.to_schema())


def render() -> str:
    """The routes and the errors, as Markdown."""
    tables = [_table(group, operations) for group, operations in groups(document()).items()]
    errors = "".join(f"| {status} | `{code}` | {meaning} |\n" for status, (code, meaning) in ERRORS.items())
    head = "\n## Errors\n\nEach status with its commonest `code`; others are more precise.\n\n"
    return MARK + "".join(tables) + head + "| status | `code` | meaning |\n|---|---|---|\n" + errors


def _table(group: str, operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    rows = "".join(_row(path, method, operation) for path, method, operation in operations)
    return f"\n## {group}\n\n| route | scope | what |\n|---|---|---|\n{rows}"


def _row(path: str, method: str, operation: dict[str, Any]) -> str:
    scopes = ", ".join(f"`{scope}`" for scope in operation.get("x-scopes", []))
    text = " ".join((operation.get("description") or operation.get("summary") or "").split())
    first = text.partition(". ")[0].rstrip(".").replace("|", "\\|")
    return f"| `{method.upper()} {path}` | {scopes} | {first} |\n"


def write() -> None:
    """Put the routes in the place of those that are there; what stands above them stays."""
    written = REFERENCE.read_text(encoding="utf-8").partition(MARK)[0]
    REFERENCE.write_text(written + render(), encoding="utf-8")


if __name__ == "__main__":
    write()
