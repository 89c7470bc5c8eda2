"""Where an SMTP conversation stands, and how long each part of it may take."""

from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """One part of the conversation; every error carries the one it happened in."""

    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"
    QUIT = "quit"

    @property
    def about_us(self) -> bool:
        """True before MAIL: a refusal there concerns this client or its settings, never the mail."""
        return self in _ABOUT_US


_ABOUT_US = frozenset({Phase.CONNECT, Phase.BANNER, Phase.EHLO, Phase.STARTTLS, Phase.AUTH, Phase.RSET})


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that each phase may take; the defaults are the minimums of RFC 5321, section 4.5.3.2.

    `connect` covers DNS and TCP, `body` one block of the mail, `total` everything up to the final dot (waiting for a
    free connection included). `dot` runs on its own: giving up on that reply makes a mail uncertain.
    """

    connect: float = 30.0
    banner: float = 300.0
    ehlo: float = 300.0
    starttls: float = 60.0
    auth: float = 120.0
    rset: float = 20.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    body: float = 180.0
    dot: float = 600.0
    quit: float = 2.0
    total: float = 900.0

    def of(self, phase: Phase) -> float:
        """Return the seconds allowed for one phase."""
        seconds: float = getattr(self, phase.value)
        return seconds

    def scaled(self, factor: float) -> "Timeouts":
        """Return these timeouts with each one multiplied by `factor`."""
        return Timeouts(**{name: getattr(self, name) * factor for name in self.__struct_fields__})
