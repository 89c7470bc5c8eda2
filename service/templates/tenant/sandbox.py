"""The Jinja in which tenants write: what it may say, and what it may do while it runs.

A template is checked as a syntax tree before a line of it runs: nodes, filters, tests and calls are those named here.
What is left can still multiply, repeat and nest; numbers and texts are bounded below, time and memory by the process
it runs in (service.templates.tenant.sandbox_process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from service.templates.environment import lines, paragraphs

MAX_TEXT = 1024 * 1024
"""Characters of one text while a template runs, and of each part of the mail that it makes."""
MAX_NUMBER = 10**15
MAX_RANGE = 1_000

FILTERS = (
    "abs", "capitalize", "default", "d", "e", "escape", "first", "float", "int", "join", "last", "length", "count",
    "list", "lower", "replace", "reverse", "round", "sort", "string", "title", "trim", "truncate", "unique", "upper",
    "urlencode", "wordcount",
)  # fmt: skip
OWN_FILTERS = {"lines": lines, "paragraphs": paragraphs}
TESTS = (
    "defined", "undefined", "none", "true", "false", "odd", "even", "divisibleby", "number", "string", "in", "eq", "ne",
    "lt", "le", "gt", "ge", "==", "!=", "<", "<=", ">", ">=", "mapping", "sequence", "iterable",
)  # fmt: skip
LOOP = ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem")
NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.NSRef, nodes.Const, nodes.If, nodes.For,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And,
    nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod,
    nodes.Concat, nodes.CondExpr, nodes.Assign, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Call,
    nodes.Keyword, nodes.With,
)  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """Values are JSON: no attribute of a Python object can be reached, nothing but `range` can be called."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look a name up in an object of the variables; a loop has its counters."""
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if type(obj).__module__.startswith("jinja2.runtime") and attribute in LOOP:
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look an item or a key up."""
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def is_safe_callable(self, obj: Any) -> bool:
        """Tell whether a template may call this."""
        return obj is few

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Reckon with numbers; of texts only sums, as long as they are short."""
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (left, right))
        texts = operator == "+" and isinstance(left, str) and isinstance(right, str)
        if not (texts or (numbers and operator != "**")):
            raise SecurityError(f"`{operator}` takes numbers, and `+` two texts")
        if texts and len(left) + len(right) > MAX_TEXT:
            raise SecurityError("a text grows too long")
        found = self.binop_table[operator](left, right)
        if numbers and abs(found) > MAX_NUMBER:
            raise SecurityError("a number grows too large")
        return found


def few(*arguments: int) -> range:
    """Jinja's `range`, of at most a thousand numbers."""
    found = range(*arguments)
    if len(found) > MAX_RANGE:
        raise SecurityError(f"a range has at most {MAX_RANGE} numbers")
    return found


def environment(*, autoescape: bool) -> jinja2.Environment:
    """Make the environment of one kind of part: escaping for HTML, plain for subjects and text."""
    made = Sandbox(
        undefined=jinja2.StrictUndefined,
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        optimized=False,  # folding constants would run them while they compile
        cache_size=0,
    )
    made.filters = {name: made.filters[name] for name in FILTERS} | OWN_FILTERS
    made.tests = {name: made.tests[name] for name in TESTS}
    made.globals = {"range": few}
    return made


def forbidden(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Name (line, what) of everything in a template that tenants may not write."""
    for node in _walk(tree):
        if not isinstance(node, NODES):
            yield node.lineno, f"`{_word(node)}` is not available here"
        elif (check := CHECKS.get(type(node))) is not None and (found := check(node)):
            yield node.lineno, found


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending += reversed(list(node.iter_child_nodes()))


def _word(node: nodes.Node) -> str:
    return {"Include": "include", "Import": "import", "FromImport": "import", "Pow": "**"}.get(
        type(node).__name__, type(node).__name__.lower()
    )


def _call(node: Any) -> str | None:
    named = isinstance(node.node, nodes.Name) and node.node.name == "range"
    plain = not (node.kwargs or node.dyn_args or node.dyn_kwargs)
    return None if named and plain else "only `range(…)` can be called"


def _filter(node: Any) -> str | None:
    known = node.name in FILTERS or node.name in OWN_FILTERS
    return None if known else f"there is no filter `{node.name}` here"


def _test(node: Any) -> str | None:
    return None if node.name in TESTS else f"there is no test `{node.name}` here"


def _for(node: Any) -> str | None:
    return "a loop cannot be recursive" if node.recursive else None


def _attribute(node: Any) -> str | None:
    return f"`{node.attr}` is not a name to look up" if node.attr.startswith("_") else None


CHECKS: dict[type[nodes.Node], Callable[[Any], str | None]] = {
    nodes.Call: _call,
    nodes.Filter: _filter,
    nodes.Test: _test,
    nodes.For: _for,
    nodes.Getattr: _attribute,
}
