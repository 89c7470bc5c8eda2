"""One template, compiled: what it needs, and the mail it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import msgspec
from jinja2 import meta, nodes

from service.templates.environment import HTML, PLAIN
from service.templates.mjml import compile_markup, link_expressions
from service.templates.source import UNSUBSCRIBE, Declared, Files


class Rendered(msgspec.Struct, frozen=True):
    """A mail's content: a subject of one line, an HTML document, a plain text."""

    subject: str
    html: str
    text: str | None


class Template(msgspec.Struct, frozen=True):
    """A compiled template: rendering is Jinja alone, MJML and CSS are done with.

    `required` must be given; `links` must be http(s) addresses; `headline` are those that stand in the subject.
    """

    key: str
    declared: dict[str, Declared]
    known: frozenset[str]
    required: frozenset[str]
    links: frozenset[str]
    headline: frozenset[str]
    defaults: dict[str, str]
    subject: jinja2.Template
    html: jinja2.Template
    text: jinja2.Template | None

    def render(self, variables: Mapping[str, Any]) -> Rendered:
        """Fill the template in; raises jinja2.UndefinedError where something inside a variable is missing."""
        given = {name: value for name, value in variables.items() if value is not None}
        context = {UNSUBSCRIBE: ""} | self.defaults | given
        text = None if self.text is None else self.text.render(context)
        return Rendered(self.subject.render(context).strip(), self.html.render(context), text)


def compile_template(
    key: str, files: Files, html: jinja2.Environment = HTML, plain: jinja2.Environment = PLAIN
) -> Template:
    """Compile a template's text: MJML to HTML with inlined CSS, then all of it to Jinja. Takes some 10 ms.

    Raises jinja2.TemplateSyntaxError, or ValueError where the MJML is wrong.
    """
    markup = compile_markup(files.mjml, html) if files.html is None else files.html
    sources = [(plain, files.subject), (html, markup), *([] if files.text is None else [(plain, files.text)])]
    trees = [environment.parse(source) for environment, source in sources]
    known, optional = _names(trees), _optional(trees)
    declared = files.variables or {}
    required = {name for name, one in declared.items() if one.required} if declared else known - optional
    return Template(
        key=key,
        declared=declared,
        known=frozenset(known | set(declared)),
        required=frozenset(required - {UNSUBSCRIBE}),
        links=frozenset(_links(markup, html)),
        headline=frozenset(_names(trees[:1])),
        defaults={name: one.default for name, one in declared.items() if not one.required},
        subject=plain.from_string(files.subject),
        html=html.from_string(markup),
        text=None if files.text is None else plain.from_string(files.text),
    )


def _names(trees: Iterable[nodes.Template]) -> set[str]:
    return set().union(*(meta.find_undeclared_variables(tree) for tree in trees))


def _optional(trees: Iterable[nodes.Template]) -> set[str]:
    """Names that a template can do without: under `default`, or asked for by `is defined`."""
    found = set()
    for tree in trees:
        for node in tree.find_all((nodes.Filter, nodes.Test)):
            if node.name in ("default", "d", "defined") and isinstance(node.node, nodes.Name):
                found.add(node.node.name)
    return found


def _links(markup: str, html: jinja2.Environment) -> set[str]:
    return _names(html.parse(expression) for expression in link_expressions(markup))
