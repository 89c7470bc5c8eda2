"""The house rules of mail, which the settings make."""

import msgspec

from service.mail.addresses import Address, AddressRefused, parse_address
from service.settings import Settings, SettingsError


class House(msgspec.Struct, frozen=True):
    """What a mail takes from the service: its default sender, and the domains a mail may come from (`*`: any)."""

    sender: Address
    domains: frozenset[str]
    verified_only: bool = False

    @classmethod
    def of(cls, mail_from: str, mail_domains: tuple[str, ...]) -> "House":
        """Read the two settings. Raises AddressRefused when `mail_from` is no address."""
        sender = parse_address(mail_from, private=True)
        return cls(sender, frozenset({sender.domain, *(domain.lower() for domain in mail_domains)}))

    @property
    def host(self) -> str:
        """The right side of every Message-ID made here."""
        return self.sender.addr_spec.rpartition("@")[2]


def house_of(settings: Settings) -> House:
    """The house rules that the settings make. Raises SettingsError where MAIL_FROM is no sender."""
    try:
        return House.of(settings.mail_from, settings.mail_domains)
    except AddressRefused as error:
        raise SettingsError([f"MAIL_FROM: this is no sender: {error}"]) from None
