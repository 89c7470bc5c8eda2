"""Addresses: one strictly read `local@domain`, with or without a display name."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import email_validator
import msgspec
from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES

from service.mail.characters import BIDI, problem
from service.mail.faults import Fault, Refused

MAX_INPUT = 1000  # characters looked at; an addr-spec has at most 254 octets (RFC 5321 4.5.3.1.3, erratum 1690)
MAX_PLAIN = 250  # characters of local part and domain, in both its forms: below every limit of the validator
MAX_NAME = 320  # characters of a display name
MAX_LOCAL = 64  # octets (RFC 5321 4.5.3.1.1)

_BARE = re.compile(r'[^\s<>(),:;\[\]\\"]+')
_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # RFC 5321 4.1.2
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)" *<([^<>]*)>')
_PLAIN_NAME = re.compile(r'([^<>"(),:;@\[\]\\]*)<([^<>]*)>')
# Reached from inside one network only (RFC 6762, RFC 8375, ICANN's .internal), or by no one (.invalid, .onion, .arpa).
_PRIVATE = ("arpa", "corp", "home", "internal", "invalid", "lan", "local", "localdomain", "localhost", "onion")
# Scripts that one language mixes: Japanese, Korean, Chinese (UTS 39, "highly restrictive").
_MIXTURES = (
    {"LATIN", "CJK", "HIRAGANA", "KATAKANA"},
    {"LATIN", "CJK", "HANGUL"},
    {"LATIN", "CJK", "BOPOMOFO"},
)


class Address(msgspec.Struct, frozen=True):
    """One mailbox.

    `local` and `domain` are what a person reads (the domain as U-labels, lower case); `addr_spec` is what goes on
    the wire: the domain as A-labels, the local part in UTF-8 when `smtputf8` is set, ASCII otherwise.
    `mixed_script` marks a part that mixes alphabets (a Cyrillic letter in a Latin word): look twice.
    """

    name: str
    local: str
    domain: str
    addr_spec: str
    smtputf8: bool = False
    mixed_script: bool = False

    @property
    def key(self) -> str:
        """What two spellings of one mailbox have in common, for removing duplicates."""
        return self.addr_spec.casefold()

    def __str__(self) -> str:
        return f"{self.name} <{self.addr_spec}>" if self.name else self.addr_spec


class AddressRefused(Refused):
    """Text that is not exactly one mailbox we would write to; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__([Fault("", code, message)])
        self.code = code


class AddressesRefused(Refused):
    """Some of a list of addresses were refused; each fault's `where` is the index of its address."""


def parse_address(text: str, *, name: str | None = None, private: bool = False) -> Address:
    """Read `local@domain` or `Name <local@domain>`: exactly one, no comments, no routes, no network look-up.

    `name` is the display name when it comes apart from the address. `private` also admits what only one network
    knows: `localhost`, single labels, `.internal`, `.local`, IP literals. The reserved `.test`, `.example` and
    `example.com|net|org` are always admitted. Raises AddressRefused.
    """
    found, addr_spec = _split(_checked(text))
    display = _display_name(found if name is None else name)
    if addr_spec.count("@") != 1 or not _BARE.fullmatch(addr_spec):
        addr_spec = _explain(addr_spec, private)
    return _build(display, addr_spec, private)


def parse_addresses(texts: Sequence[str], *, private: bool = False) -> list[Address]:
    """Read many addresses, in order; raises AddressesRefused with every fault and its index."""
    addresses, faults = [], []
    for index, text in enumerate(texts):
        try:
            addresses.append(parse_address(text, private=private))
        except AddressRefused as error:
            faults += [fault.at(str(index)) for fault in error.faults]
    if faults:
        raise AddressesRefused(faults)
    return addresses


def unique(addresses: Iterable[Address]) -> list[Address]:
    """Drop repeated mailboxes; the first spelling of each stays, in order."""
    first: dict[str, Address] = {}
    for address in addresses:
        first.setdefault(address.key, address)
    return list(first.values())


def _checked(text: str) -> str:
    if len(text) > MAX_INPUT:
        raise AddressRefused("too_long", f"has {len(text)} characters; an address has at most 254")
    if fault := problem(text):
        raise AddressRefused(*fault)
    stripped = text.strip(" ")
    if not stripped:
        raise AddressRefused("empty", "is empty; give an address such as ada@example.org")
    return stripped


def _split(text: str) -> tuple[str, str]:
    if not text.endswith(">"):
        return "", text
    if quoted := _QUOTED_NAME.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", quoted[1]), quoted[2]
    if plain := _PLAIN_NAME.fullmatch(text):
        return plain[1].strip(" "), plain[2]
    raise AddressRefused(
        "not_one_address",
        'is not one address; write `local@domain` or `"Name" <local@domain>`, a name with punctuation in quotes',
    )


def _display_name(name: str) -> str:
    if not name:
        return ""
    if fault := problem(name):
        raise AddressRefused(fault[0], f"has a display name that {fault[1]}")
    if BIDI.search(name):
        raise AddressRefused("bidi_control", "has a display name that reorders its own characters; remove the controls")
    if len(name) > MAX_NAME:
        raise AddressRefused("too_long", f"has a display name of {len(name)} characters; at most {MAX_NAME} are sent")
    return unicodedata.normalize("NFC", name.strip())


def _explain(addr_spec: str, private: bool) -> str:
    """Say what is wrong with text that is no plain addr-spec; returns it if it is an admitted IP literal."""
    local, _, domain = addr_spec.partition("@")
    if domain.startswith("[") and domain.endswith("]") and _BARE.fullmatch(local):
        if private:
            return addr_spec
        raise AddressRefused("ip_literal", "names a host by IP address; use a domain name")
    if "@" not in addr_spec:
        raise AddressRefused("syntax", "has no @-sign; write `local@domain`")
    raise AddressRefused("not_one_address", "is not exactly one address; comments, lists and quotes are refused")


def _build(name: str, addr_spec: str, private: bool) -> Address:
    local, _, domain = addr_spec.partition("@")
    found = _domain(domain, private) if _is_plain(local) else None
    if found is None or len(local) + len(found.addr_spec) + len(found.domain.encode()) > MAX_PLAIN:
        return _read(name, addr_spec, private)
    return Address(name, local, found.domain, local + found.addr_spec[1:], found.smtputf8, found.mixed_script)


def _is_plain(local: str) -> bool:
    """Whether the validator would leave a local part exactly as it is."""
    return (
        len(local) <= MAX_LOCAL
        and _PLAIN_LOCAL.fullmatch(local) is not None
        and local.lower() not in CASE_INSENSITIVE_MAILBOX_NAMES
    )


@functools.lru_cache(maxsize=10_000)
def _domain(domain: str, private: bool) -> Address | None:
    """The mailbox `x` of a domain; None where the domain is refused. Mail goes to few domains: each is read once."""
    try:
        return _read("", f"x@{domain}", private)
    except AddressRefused:
        return None


def _read(name: str, addr_spec: str, private: bool) -> Address:
    below = ""
    if _is_private(domain := addr_spec.partition("@")[2]):
        if not private:
            raise _private(domain)
        # The validator refuses localhost and its kind whatever it is told: it sees such a name one level down.
        below = ".example"
    try:
        read = email_validator.validate_email(
            addr_spec + below,
            strict=True,
            check_deliverability=False,
            globally_deliverable=False,
            test_environment=True,
            allow_domain_literal=private,
        )
    except email_validator.EmailNotValidError as error:
        code = "too_long" if "too long" in str(error) or "too many)" in str(error) else "syntax"
        raise AddressRefused(code, _sentence(str(error))) from None
    if len(read.local_part.encode()) > MAX_LOCAL:
        raise AddressRefused("too_long", f"has more than {MAX_LOCAL} octets before the @-sign")
    ascii_domain = read.ascii_domain.removesuffix(below)
    if not private and _is_private(ascii_domain):  # full-width dots and letters fold to plain ones only here
        raise _private(ascii_domain)
    shown = read.domain.removesuffix(below)
    return Address(
        name=name,
        local=read.local_part,
        domain=shown,
        addr_spec=f"{read.local_part}@{ascii_domain}",
        smtputf8=read.smtputf8,
        mixed_script=not (read.local_part + shown).isascii() and any(map(_mixes, [read.local_part, *shown.split(".")])),
    )


def _is_private(domain: str) -> bool:
    domain = domain.lower()
    if not domain or domain[-1] in ".]":  # no domain name at all: the validator says so
        return False
    last = domain.rpartition(".")[2]
    return "." not in domain or last in _PRIVATE or not last[-1].isalpha()


def _private(domain: str) -> AddressRefused:
    return AddressRefused("private_domain", f"goes to {domain!r}, which no mail server outside one network can reach")


def _mixes(label: str) -> bool:
    scripts = {unicodedata.name(c, "?").split(" ", 1)[0].split("-")[0] for c in label if c.isalpha()}
    return len(scripts) > 1 and not any(scripts <= mixture for mixture in _MIXTURES)


def _sentence(message: str) -> str:
    return message[0].lower() + message[1:].rstrip(".")
