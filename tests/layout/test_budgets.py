"""Rooms stay small: a file has one noun and at most 400 lines, a function is a verb of about ten."""

import ast
from pathlib import Path
from statistics import median

import pytest

from tests.layout.repository import ROOT, functions_of, python_files

FILE_LINES = 400
MEDIAN_FILE_LINES = 150
FUNCTION_LINES = 80
MEDIAN_FUNCTION_LINES = 12

CODE = ("service", "workers", "migrations", "start")


def lines_of(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without decorators, signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return function.end_lineno - body[0].lineno + 1 if body and function.end_lineno else 0


def test_no_file_is_longer_than_400_lines() -> None:
    long = {str(path): count for path in python_files() if (count := lines_of(path)) > FILE_LINES}
    assert not long, f"which second concept hides in each? {long}"


@pytest.mark.parametrize("package", ["service", "workers"])
def test_the_usual_file_has_about_a_hundred_lines(package: str) -> None:
    assert median(lines_of(path) for path in python_files(package)) <= MEDIAN_FILE_LINES


def test_the_usual_function_has_about_ten_lines() -> None:
    lengths = [body_lines(function) for path in python_files("service", "workers") for function in functions_of(path)]
    assert median(lengths) <= MEDIAN_FUNCTION_LINES


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path}:{function.lineno} {function.name}": body_lines(function)
        for path in python_files(*CODE)
        if "versions" not in path.parts  # a migration is one long list of statements
        for function in functions_of(path)
        if body_lines(function) > FUNCTION_LINES
    }
    assert not long, f"a function is one verb: {long}"
