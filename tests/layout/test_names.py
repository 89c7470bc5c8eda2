"""One word per concept, in one form, everywhere."""

import ast
import re
from pathlib import Path

from tests.layout.repository import python_files, tree_of

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")


def log_events(path: Path) -> list[tuple[int, str]]:
    """The literal first argument of every `log.<level>(…)` call of a file, with its line."""
    return [
        (node.lineno, node.args[0].value)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOG_METHODS
        and isinstance(node.func.value, ast.Name | ast.Attribute)
        and (node.func.value.id if isinstance(node.func.value, ast.Name) else node.func.value.attr)
        in {"log", "_log", "logger"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


def test_a_log_event_is_a_noun_and_a_verb_never_a_sentence() -> None:
    events = [(path, line, event) for path in python_files("service", "workers") for line, event in log_events(path)]
    assert events, "no log event found, so this test would prove nothing"
    assert [f"{path}:{line}: {event}" for path, line, event in events if not EVENT.fullmatch(event)] == []


def test_task_is_a_word_of_the_wire_never_a_class_of_ours() -> None:
    """`workers/callboard_workers/celery` extends Celery's own Task class, and there the word is Celery's."""
    found = [
        f"{path}:{node.lineno}: class {node.name}"
        for path in python_files("service", "workers")
        if path.parts[:3] != ("workers", "callboard_workers", "celery")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and re.fullmatch(r"_?Task", node.name)
    ]
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path)
        for path in python_files("service", "workers", "tests", "bench", "start")
        if (tree := tree_of(path)).body and ast.get_docstring(tree) is None
    ]
    assert not silent, f"a module starts with one sentence on what it is for: {silent}"


def test_every_public_function_and_class_says_what_it_does() -> None:
    """In the actor library, which others import; a method of one line that repeats its protocol may be silent."""
    silent = [
        f"{path}:{node.lineno}: {node.name}"
        for path in python_files("workers")
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)
    ]
    assert not silent
