"""No two folders import each other, however far around; imports for types count."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

from tests.layout.repository import python_files, tree_of

Graph = Mapping[str, set[str]]


def module_of(path: Path) -> str:
    """Return the dotted name of a Python file."""
    parts = path.with_suffix("").parts[1:] if path.parts[0] == "workers" else path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: Iterable[str]) -> Iterator[str]:
    """Name the modules of ours that a file imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in modules:
                    yield full
                elif node.module in modules:
                    yield node.module


def file_graph() -> Graph:
    """Map each module to the modules that it imports. A package's `__init__` may import what is below it."""
    files = {module_of(path): path for path in python_files("service", "workers")}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        inside = f"{module}." if path.name == "__init__.py" else ""
        graph[module] = {
            found for found in imports_of(path, files) if found != module and not (inside and found.startswith(inside))
        }
    return graph


def folder_graph(files: Graph) -> Graph:
    """Map each folder to the folders that its files import, but for the folders that it lies in or that lie in it."""
    packages = {module_of(path) for path in python_files("service", "workers") if path.name == "__init__.py"}
    folder = {module: module if module in packages else module.rpartition(".")[0] for module in files}
    graph: dict[str, set[str]] = {}
    for module, imported in files.items():
        here = folder[module]
        for found in imported:
            there = folder[found]
            if here != there and not there.startswith(f"{here}.") and not here.startswith(f"{there}."):
                graph.setdefault(here, set()).add(there)
    return graph


def circle(graph: Graph) -> list[str]:
    """Return one circle as arrows, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        around = error.args[1][::-1]
        return [f"{importer} -> {imported}" for importer, imported in pairwise(around)]
    return []


def test_no_circle_between_folders() -> None:
    graph = file_graph()
    assert len(graph) > 100
    arrows = circle(folder_graph(graph))
    assert not arrows, "cut one of these arrows:\n  " + "\n  ".join(arrows)


def test_a_circle_is_drawn() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) in (
        ["a -> b", "b -> c", "c -> a"],
        ["b -> c", "c -> a", "a -> b"],
        ["c -> a", "a -> b", "b -> c"],
    )
    assert circle({"a": {"b"}, "b": {"c"}}) == []
