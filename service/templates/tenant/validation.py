"""What a tenant's template must keep to before it is compiled: every fault, with its JSON pointer. Pure."""

from collections.abc import Iterator

from service.core.errors import Fault
from service.core.validation import LOCALE
from service.mail.characters import unsendable
from service.templates.schemas import TemplateIn
from service.templates.tenant.content import KEY, Words, nearest, spelled

MAX_SOURCE = 256 * 1024
"""Characters of a body in one language."""
MAX_SUBJECT = 500
MAX_LOCALES = 50
MAX_VARIABLES = 200
MAX_NOTE = 500
TYPES = ("text", "url", "email")


def template_faults(key: str, wanted: TemplateIn, built_in: bool) -> Iterator[Fault]:
    """Name everything wrong with a template but what only compiling shows."""
    if not KEY.fullmatch(key):
        yield Fault("", "The key of a template is 1 to 64 of a-z 0-9 _, a letter first.")
    if not wanted.contents:
        yield Fault("/contents", 'is empty; give one language at least, such as {"en": {…}}.')
    if len(wanted.contents) > MAX_LOCALES:
        yield Fault("/contents", f"has {len(wanted.contents)} languages; at most {MAX_LOCALES} are kept.")
    if not LOCALE.fullmatch(wanted.default_locale):
        yield Fault("/default_locale", "is not a language tag such as en or de-AT.")
    elif wanted.contents and not built_in and nearest(wanted.contents, None, wanted.default_locale) is None:
        yield Fault("/default_locale", "is not among `contents`, and there is no built-in template to fall back on.")
    yield from _locale_faults(wanted)
    yield from _variable_faults(wanted)
    if wanted.note is not None and (len(wanted.note) > MAX_NOTE or not wanted.note.isprintable()):
        yield Fault("/note", f"must be at most {MAX_NOTE} printable characters.")


def _locale_faults(wanted: TemplateIn) -> Iterator[Fault]:
    seen = set[str]()
    for locale, words in list(wanted.contents.items())[:MAX_LOCALES]:
        pointer = f"/contents/{locale.replace('~', '~0').replace('/', '~1')}"
        if not LOCALE.fullmatch(locale):
            yield Fault(pointer, "is not a language tag such as en or de-AT.")
        if spelled(locale) in seen:
            yield Fault(pointer, "is there twice; `de-AT`, `de_AT` and `de-at` are one language.")
        seen.add(spelled(locale))
        yield from _words_faults(words, pointer)


def _words_faults(words: Words, pointer: str) -> Iterator[Fault]:
    if not words.subject.strip() or len(words.subject) > MAX_SUBJECT or "\n" in words.subject or "\r" in words.subject:
        yield Fault(f"{pointer}/subject", f"must be one line of 1 to {MAX_SUBJECT} characters.")
    if (words.mjml is None) == (words.html is None):
        yield Fault(pointer, "needs a body: either `mjml` or `html`.")
    for part in ("subject", "mjml", "html", "text"):
        source = getattr(words, part) or ""
        if len(source) > MAX_SOURCE:
            yield Fault(f"{pointer}/{part}", f"is over {MAX_SOURCE:,} characters.")
        if unsendable(source):
            yield Fault(f"{pointer}/{part}", "holds a character that no mail can carry.")


def _variable_faults(wanted: TemplateIn) -> Iterator[Fault]:
    declared = wanted.variables or {}
    if len(declared) > MAX_VARIABLES:
        yield Fault("/variables", f"has {len(declared)} variables; at most {MAX_VARIABLES} are kept.")
    for name, one in list(declared.items())[:MAX_VARIABLES]:
        if not name.isidentifier() or name.startswith("_"):
            yield Fault("/variables", f"{name[:64]!r} is not a name for a variable.")
        if one.type not in TYPES:
            yield Fault(f"/variables/{name[:64]}/type", f"must be one of {', '.join(TYPES)}.")
