"""Reads a URL that somebody wants us to call, and refuses what is no plain address of the outside world. Pure.

What is refused here is refused early and kindly; what counts is the check of every resolved address at connect.
"""

import re
from collections.abc import Set
from urllib.parse import urlsplit

import idna
import msgspec

from service.egress import ip_ranges

LONGEST = 2_000  # characters
PORTS = {"http": 80, "https": 443}
INNER = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "localdomain", "home.arpa")
"""Top-level names that only ever lead inside."""
NUMERIC = re.compile(r"(?:[0-9]+|0[xX][0-9a-fA-F]*)")
HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
VISIBLE = re.compile(r"[\x21-\x7e]+")


class AddressRefused(ValueError):
    """The address may not be called; the message says why, and what would be allowed."""


class Target(msgspec.Struct, frozen=True):
    """A URL taken apart: `host` in its ASCII form without brackets, `path` with its query, `url` all of it again."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == PORTS[self.scheme] else f"{shown}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its one normal form."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse(url: str, *, ports: Set[int], private: bool = False) -> Target:
    """Take a URL apart. Raises AddressRefused; `private` allows inner names, private addresses and any port."""
    if len(url) > LONGEST:
        raise AddressRefused(f"A URL of at most {LONGEST} characters is expected.")
    try:
        found = urlsplit(url)
        host, port = found.hostname or "", found.port
    except ValueError:
        raise AddressRefused("This is not a URL.") from None
    if found.scheme not in PORTS:
        raise AddressRefused("A URL that starts with https:// or http:// is expected.")
    if "@" in found.netloc or "\\" in url:
        raise AddressRefused("A user or password does not belong in a URL: requests are signed.")
    if "#" in url:
        raise AddressRefused("A URL that is called has no fragment (#…).")
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    if not VISIBLE.fullmatch(path):
        raise AddressRefused("The path may hold visible ASCII only: write anything else percent-encoded.")
    number = PORTS[found.scheme] if port is None else port
    if number == 0 or (number not in ports and not private):
        allowed = ", ".join(map(str, sorted(ports)))
        raise AddressRefused(f"Port {number} may not be called; these may: {allowed} (OUTBOUND_PORTS).")
    return Target(found.scheme, check_host(host, private=private), number, path)


def check_host(host: str, *, private: bool = False) -> str:
    """Bring a host to its ASCII form. Raises AddressRefused for addresses and names that lead inside."""
    if (address := ip_ranges.read(host)) is not None:
        if not ip_ranges.is_allowed(address, private=private):
            raise AddressRefused("The address is private, reserved or local: a public one is expected.")
        return str(address)
    name = _ascii(host).rstrip(".")
    if not name or len(name) > 253 or not HOST.fullmatch(name):
        raise AddressRefused("This is not the name of a host.")
    if NUMERIC.fullmatch(name.rpartition(".")[2]):
        raise AddressRefused("An IP address is written as four plain decimal numbers, such as 198.41.0.4.")
    if not private and ("." not in name or any(name.endswith(f".{inner}") for inner in INNER)):
        raise AddressRefused("The name leads into a private network: a public one is expected.")
    return name


def _ascii(host: str) -> str:
    """Bring a name to A-labels by UTS 46, as browsers do: full-width digits become digits before anything is asked."""
    if host.isascii():
        return host.lower()
    try:
        return idna.encode(host, uts46=True, transitional=False).decode()
    except (idna.IDNAError, UnicodeError):
        raise AddressRefused("This is not the name of a host.") from None
