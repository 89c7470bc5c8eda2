"""Addresses as they are stored and told: one text that reads back as the same mailbox.

Reading back trusts what was checked when it was written; a text from outside goes through `addresses.parse_address`.
"""

import re

from service.mail.addresses import Address

_PLAIN = re.compile(r'[^<>"(),:;@\[\]\\]+')


def spell(address: Address) -> str:
    """Write a mailbox as `local@domain`, `Name <local@domain>` or `"Name, with marks" <local@domain>`."""
    if not address.name:
        return address.addr_spec
    if _PLAIN.fullmatch(address.name):
        return f"{address.name} <{address.addr_spec}>"
    escaped = address.name.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}" <{address.addr_spec}>'


def read_back(spelled: str) -> Address:
    """Read what `spell` wrote."""
    name, addr_spec = "", spelled
    if spelled.endswith(">"):
        name, _, addr_spec = spelled[:-1].rpartition(" <")
        if name.startswith('"'):
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
    local, _, domain = addr_spec.rpartition("@")
    return Address(name, local, domain, addr_spec, smtputf8=not local.isascii())


_SMALL = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}


def canonical(addr_spec: str) -> str:
    """Return what two spellings of one mailbox have in common: its ASCII letters small, as `lower` of collation C."""
    return addr_spec.translate(_SMALL)
