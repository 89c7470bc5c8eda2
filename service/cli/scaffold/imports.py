"""Adds imports to a module's text. Pure."""

import ast
from collections.abc import Mapping

from service.cli.scaffold.names import Refused


def with_imports(text: str, wanted: Mapping[str, str]) -> str:
    """Import each name of `wanted` (name to module) unless it is imported from there already.

    Raises Refused where the module uses a name for something else. The imports are sorted later.
    """
    body = ast.parse(text).body
    froms = [node for node in body if isinstance(node, ast.ImportFrom)]
    have = {(alias.asname or alias.name): node.module or "" for node in froms for alias in node.names}
    others = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    faults = [
        f"the module means something else by {name!r} than {module}.{name}: rename it there first"
        for name, module in wanted.items()
        if name in others or have.get(name, module).split(".")[0] != module.split(".")[0]
    ]
    if faults:
        raise Refused(faults)
    missing = [f"from {module} import {name}\n" for name, module in wanted.items() if name not in have]
    lines = text.splitlines(keepends=True)
    place = _place(body)
    return "".join([*lines[:place], *missing, *lines[place:]])


def _place(body: list[ast.stmt]) -> int:
    """The line after the last import, or else after the docstring."""
    imports = [node.end_lineno or 0 for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    first = body[0].end_lineno or 0 if body and isinstance(body[0], ast.Expr) else 0
    return max([first, *imports])
