"""Every place in the code that the documents name is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.layout.repository import ROOT, tree_of

PLACE = re.compile(r"`((?:service|workers|migrations|tests)/[\w/]+\.py):([\w.]+)`")


@cache
def names_of(path: Path) -> frozenset[str]:
    """What a file binds: functions, classes, their methods (`Class.method`), constants."""
    found: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found.update(f"{node.name}.{method.name}" for method in methods)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return frozenset(found)


def places(document: Path) -> list[tuple[str, str]]:
    return PLACE.findall(document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_every_place_a_document_names_exists(document: Path) -> None:
    missing = [
        f"{file}:{name}"
        for file, name in places(document)
        if not (ROOT / file).is_file() or name not in names_of(Path(file))
    ]
    assert not missing


def test_the_path_names_a_place_for_each_step() -> None:
    page = ROOT / "docs" / "path-of-a-task.md"
    steps = re.split(r"(?m)^\d+\. ", page.read_text(encoding="utf-8").partition("## A direct message")[0])[1:]
    assert len(steps) == 12
    assert [step[:40] for step in steps if not PLACE.search(step)] == []
    assert len(set(places(page))) > 30
