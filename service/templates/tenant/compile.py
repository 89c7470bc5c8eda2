"""Compiles and fills in what tenants wrote. Runs in a child process only: each step may be the last one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from service.mail.plain_text import text_of
from service.templates.source import UNSUBSCRIBE, Declared, Files
from service.templates.template import Rendered, Template, compile_template
from service.templates.tenant.content import Needs, Words
from service.templates.tenant.sandbox import MAX_TEXT, environment, forbidden

HTML = environment(autoescape=True)
PLAIN = environment(autoescape=False)


class Unfit(Exception):
    """No template, or no mail: `faults` are (part, sentence) pairs; part is subject, html, mjml, text or empty."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(sentence for _, sentence in faults))


def compiled(key: str, words: Words, variables: Mapping[str, Declared] | None) -> Template:
    """Compile one language. Raises Unfit naming everything that is not available, by part and line."""
    faults = [fault for part, source in _parts(words) for fault in _faults(part, source)]
    if faults:
        raise Unfit(faults)
    files = Files(words.subject, words.mjml or "", words.text, dict(variables) if variables else None, words.html)
    try:
        return compile_template(key, files, HTML, PLAIN)
    except (jinja2.TemplateError, ValueError, RecursionError) as error:
        raise Unfit([("mjml" if words.mjml else "html", _said(error))]) from None


def needs(template: Template) -> Needs:
    """What filling the template in takes."""
    return Needs(**{name: getattr(template, name) for name in Needs.__struct_fields__})


def filled(template: Template, variables: Mapping[str, Any]) -> Rendered:
    """Fill a template in. Raises Unfit where it fails, or makes more than a mail holds."""
    given = (
        {UNSUBSCRIBE: ""} | template.defaults | {name: value for name, value in variables.items() if value is not None}
    )
    subject = _run("subject", template.subject, given).strip()
    html = _run("html", template.html, given)
    text = text_of(html) if template.text is None else _run("text", template.text, given)
    return Rendered(subject, html, text)


def _run(part: str, template: jinja2.Template, given: Mapping[str, Any]) -> str:
    pieces, size = list[str](), 0
    try:
        for piece in template.generate(given):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_TEXT:
                raise SecurityError(f"it makes more than {MAX_TEXT:,} characters")
    except MemoryError:  # the process may be full of other templates: the child decides
        raise
    except Exception as error:  # whatever a template can do, it did to itself
        raise Unfit([(part, f"cannot be filled in: {_said(error)}")]) from None
    return "".join(pieces)


def _parts(words: Words) -> Iterator[tuple[str, str]]:
    for part in ("subject", "mjml", "html", "text"):
        if (source := getattr(words, part)) is not None:
            yield part, source


def _faults(part: str, source: str) -> Iterator[tuple[str, str]]:
    try:
        tree: nodes.Template = (HTML if part in ("mjml", "html") else PLAIN).parse(source)
        for line, sentence in forbidden(tree):
            yield part, f"line {line}: {sentence}"
    except jinja2.TemplateSyntaxError as error:
        yield part, f"line {error.lineno}: {error.message}"
    except RecursionError as error:
        yield part, _said(error)


def _said(error: BaseException) -> str:
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case jinja2.TemplateSyntaxError():
            return f"line {error.lineno}: {error.message}"
        case _:
            return str(error)[:300] or type(error).__name__


def weight(template: Template) -> int:
    """About how many bytes a compiled template takes."""
    parts = (template.subject, template.html, template.text)
    return sum(_code_size(part.root_render_func.__code__) for part in parts if part is not None)


def _code_size(code: CodeType) -> int:
    size = sum(map(sys.getsizeof, (code, code.co_consts, code.co_names, code.co_varnames, code.co_linetable)))
    return size + sum(
        _code_size(each) if isinstance(each, CodeType) else sys.getsizeof(each) for each in code.co_consts
    )


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is asked: to compile every language and say what each needs, or to fill one in.

    `name` is that of a compiled language; without `contents` it must be one that this child has compiled before.
    `owner` is the tenant, of whose share in the child's cache it is.
    """

    key: str
    contents: dict[str, Words] = {}
    variables: dict[str, Declared] | None = None
    name: str | None = None
    owner: str = ""
    given: dict[str, Any] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What it answers. `unknown`: it has not compiled this one yet, ask again with the contents.

    `exhausted`: there was not enough memory, and the process ends; another one may have enough.
    """

    needs: dict[str, Needs] = {}
    rendered: Rendered | None = None
    faults: list[tuple[str, str]] = []
    unknown: bool = False
    exhausted: bool = False
