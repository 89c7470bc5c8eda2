"""Every promise names the test that shows it, and that test exists."""

import ast
import re

from tests.layout.repository import ROOT

PAGE = ROOT / "docs" / "guarantees.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
FAULTS = ROOT / "tests" / "faults"


def functions_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_page_names_exists() -> None:
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 30
    assert [f"{path}::{name}" for path, name in named if not (ROOT / path).exists()] == []
    assert [f"{path}::{name}" for path, name in named if name not in functions_in(path)] == []


def test_every_row_of_the_table_names_a_test() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("| sentence | test |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = table.splitlines()
    assert len(rows) > 30
    assert [row for row in rows if not NAMED.search(row)] == []


def test_no_file_of_fault_tests_is_left_unnamed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    files = [str(path.relative_to(ROOT)) for path in FAULTS.glob("test_*.py")]
    assert len(files) >= 8
    assert [file for file in files if f"`{file}::" not in page] == []
