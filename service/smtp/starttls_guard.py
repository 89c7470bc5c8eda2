"""Listens in on STARTTLS: whatever a server sends in clear behind its 220 was put there by somebody else (RFC 3207)."""

import asyncio
from typing import TYPE_CHECKING

from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase
from service.smtp.protocol import as_transport

if TYPE_CHECKING:
    import aiosmtplib


class Tap(asyncio.Protocol):
    """Stands between a transport and the library's protocol until TLS begins, and passes everything on.

    The library throws plaintext behind the 220 away; here it ends the connection, for it proves that someone is in
    the middle.
    """

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._heard = bytearray()
        self._injected = False

    @classmethod
    def on(cls, smtp: "aiosmtplib.SMTP") -> "Tap":
        """Begin to listen, just before STARTTLS is said."""
        if smtp.transport is None or smtp.protocol is None:
            raise ConnectionResetError("the server closed the connection")
        tap = cls(as_transport(smtp.transport), smtp.protocol)
        tap._transport.set_protocol(tap)
        return tap

    def check(self) -> None:
        """Raise SmtpError (`starttls_injection`) if anything came behind the reply."""
        if self._injected:
            raise SmtpError(
                Phase.STARTTLS,
                None,
                "the server sent plaintext behind its reply to STARTTLS: somebody may be in the middle",
                Kind.TEMPORARY,
                reason="starttls_injection",
                backoff=Backoff.OPERATOR,
            )

    def data_received(self, data: bytes) -> None:
        """Pass the reply on; drop the connection if it is not alone."""
        self._heard += data
        if _behind_reply(self._heard):
            self._injected = True
            self._transport.abort()
            return
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()


def _behind_reply(heard: bytearray) -> bool:
    """True if there is anything behind the first complete reply."""
    start = 0
    while (end := heard.find(b"\n", start)) >= 0:
        if heard[start + 3 : start + 4] != b"-":
            return len(heard) > end + 1
        start = end + 1
    return False
