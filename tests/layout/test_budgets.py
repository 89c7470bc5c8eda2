"""A file is one concept with a small interface: neither a heap of several nor a piece of one."""

import ast
from pathlib import Path
from statistics import median

from tests.layout.repository import ROOT, functions_of, python_files

FILE_LINES = 400
SMALL_FILE_LINES = 60
MAX_SMALL_FILES = 120
FUNCTION_LINES = 80
MEDIAN_FUNCTION_LINES = 12

PLUG_IN_POINTS = {"api.py", "actors.py", "timeline.py", "examples.py"}
"""Files that every slice may have, however little is in them."""

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


def test_few_files_are_pieces_of_a_concept() -> None:
    """Markers (`__init__`, `__main__`), slices' plug-in points and middleware may be short."""
    small = {
        str(path): count
        for path in python_files("service", "workers")
        if not path.name.startswith("__")
        and path.name not in PLUG_IN_POINTS
        and path.parent.name != "middleware"
        and (count := lines_of(path)) < SMALL_FILE_LINES
    }
    assert len(small) <= MAX_SMALL_FILES, f"which module does each belong to? {small}"


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
