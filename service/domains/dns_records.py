"""The DNS records that a sender needs, and whether they are there."""

import msgspec
from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.nameserver import Do53Nameserver
from dns.resolver import NXDOMAIN, NoAnswer

from service.settings import Settings

WITHIN = 5.0  # seconds for one look-up
PREFIX = "_callboard"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A TXT record: what is to be published, and what was found there at the last look (null: nobody looked)."""

    name: str
    value: str
    purpose: str
    type: str = "TXT"
    found: bool | None = None
    problem: str | None = None


def records(domain: str, token: str, selector: str, public_key: str) -> list[Record]:
    """List what a domain has to publish."""
    return [
        Record(
            name=f"{PREFIX}.{domain}",
            value=f"callboard-verification={token}",
            purpose="shows that the domain is yours",
        ),
        Record(
            name=f"{selector}._domainkey.{domain}",
            value=f"v=DKIM1; k=rsa; p={public_key}",
            purpose="lets receivers check the signature of your mail (DKIM)",
        ),
    ]


class Dns:
    """Looks TXT records up; asks these name servers (`address` or `address:port`), or the system's."""

    def __init__(self, servers: tuple[str, ...] = ()) -> None:
        self._servers = servers

    @classmethod
    def of(cls, settings: Settings) -> "Dns":
        """Make what the settings describe."""
        return cls(settings.dns_servers)

    async def look(self, record: Record) -> Record:
        """Return the record with what was found; never raises."""
        try:
            texts = await self._texts(record.name)
        except (NXDOMAIN, NoAnswer):
            return _judged(record, "there is no TXT record of this name")
        except (DNSException, OSError) as error:
            return _judged(record, f"the name servers do not answer ({type(error).__name__})")
        if _plain(record.value) in map(_plain, texts):
            return msgspec.structs.replace(record, found=True)
        return _judged(record, f"there is another text: {texts[0][:100]!r}" if texts else "it is empty")

    async def _texts(self, name: str) -> list[str]:
        resolver = Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [_server(text) for text in self._servers]
        answer = await resolver.resolve(name, "TXT", lifetime=WITHIN, search=False)
        return [b"".join(row.strings).decode("utf-8", "replace") for row in answer]


def _judged(record: Record, problem: str) -> Record:
    return msgspec.structs.replace(record, found=False, problem=problem)


def _plain(text: str) -> str:
    """DNS hosts add and drop blanks; none of them mean anything here."""
    return "".join(text.split())


def _server(text: str) -> Do53Nameserver:
    host, mark, port = text.rpartition(":")
    if mark and port.isdigit() and (":" not in host or host.startswith("[")):
        return Do53Nameserver(host.strip("[]"), int(port))
    return Do53Nameserver(text.strip("[]"))
