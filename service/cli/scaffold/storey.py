"""Gives a new slice its storey in the import contracts. Pure."""

import re

from service.cli.scaffold.names import Refused

STOREYS = "[importlinter:contract:service]"
BELOW = "emails"


def with_storey(text: str, name: str) -> str:
    """Add a slice to the storey above the emails, beside neighbours that it does not know. Raises Refused."""
    head, found, contract = text.partition(STOREYS)
    lines = contract.splitlines(keepends=True)
    below = next((number for number, line in enumerate(lines) if line.strip() == BELOW), 0)
    if not found or not below or not re.fullmatch(r"\s+\w+( \| \w+)*\s*", lines[below - 1]):
        raise Refused([f"{STOREYS} in .importlinter has no storey of slices above {BELOW}: put it back first"])
    if name not in lines[below - 1].split():
        lines[below - 1] = f"{lines[below - 1].rstrip()} | {name}\n"
    return head + found + "".join(lines)
