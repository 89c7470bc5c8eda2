"""Which IP addresses a stranger may have us connect to. Pure.

Our own list, because `ipaddress.is_global` says yes to `::127.0.0.1`, `64:ff9b::7f00:1`, `2002:7f00:1::` and `fec0::1`.
An IPv4 address inside an IPv6 one counts as itself. Sources: the IANA special-purpose registries (RFC 6890), RFC 4291,
6052, 3056, 4380, 5214, and the metadata services of the clouds.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address


def _four(*networks: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, networks))


def _six(*networks: str) -> tuple[IPv6Network, ...]:
    return tuple(map(IPv6Network, networks))


PRIVATE_4 = _four("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
PRIVATE_6 = _six("::1/128", "fc00::/7")
"""Refused unless the setting OUTBOUND_PRIVATE allows private networks."""

NEVER_4 = _four(
    "0.0.0.0/8",
    "100.100.100.200/32",  # Alibaba's metadata service, inside the shared address space
    "168.63.129.16/32",  # Azure's, a public address
    "169.254.0.0/16",  # link-local, where all others have theirs
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
NEVER_6 = _six("2001::/23", "2001:db8::/32", "3fff::/20", "fd00:ec2::254/128", "fd20:ce::254/128")
GLOBAL_6 = IPv6Network("2000::/3")

LAST_32 = _six("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
"""Prefixes whose last 32 bits are an IPv4 address."""
SIX_TO_FOUR = IPv6Network("2002::/16")
ISATAP = (0x00005EFE, 0x02005EFE)


def embedded(address: IPv6Address) -> IPv4Address | None:
    """Find the IPv4 address that an IPv6 one stands for: compatible, mapped, translated, NAT64, 6to4, ISATAP."""
    number = int(address)
    if number > 1 and any(address in network for network in LAST_32):
        return IPv4Address(number & 0xFFFF_FFFF)
    if address in SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFF_FFFF)
    if number >> 32 & 0xFFFF_FFFF in ISATAP:
        return IPv4Address(number & 0xFFFF_FFFF)
    return None


def is_allowed(address: Address, *, private: bool = False) -> bool:
    """Tell whether a connection may go there; `private` also allows loopback and private networks."""
    if isinstance(address, IPv4Address):
        return _allowed_4(address, private)
    if (inner := embedded(address)) is not None:
        return _allowed_4(inner, private)
    if any(address in network for network in NEVER_6):
        return False
    return address in GLOBAL_6 or (private and any(address in network for network in PRIVATE_6))


def _allowed_4(address: IPv4Address, private: bool) -> bool:
    if any(address in network for network in NEVER_4):
        return False
    return private or not any(address in network for network in PRIVATE_4)


def read(text: str) -> Address | None:
    """Read an address in its plain form, without a zone; None for anything else."""
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None
