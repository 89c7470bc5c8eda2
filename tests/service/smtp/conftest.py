"""Transports to servers that misbehave, a fence that can be watched, and throwaway certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import uvloop

from service.smtp import ServerReply, Timeouts, Transport

LINE = b"x" * 900 + b"\r\n"
PATIENT = msgspec.structs.replace(Timeouts().scaled(0.1), connect=10, rset=10, quit=0.3)


def hasty(phase: str, seconds: float = 0.3) -> Timeouts:
    """Patience with everything but one phase."""
    return msgspec.structs.replace(PATIENT, **{phase: seconds})


def mail(number: int = 1, body: bytes = b"Hello\r\n") -> bytes:
    """A small mail with a Message-ID of its own."""
    return b"Message-ID: %s\r\nSubject: test\r\n\r\n%s" % (message_id(number).encode(), body)


def message_id(number: int = 1) -> str:
    """Its Message-ID."""
    return f"<{number}@callboard.test>"


async def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.005)


class Fence:
    """A `before_dot` that counts, and may refuse."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.calls = 0
        self.refused: dict[str, ServerReply] = {}

    async def __call__(self, refused: Mapping[str, ServerReply]) -> None:
        self.calls += 1
        self.refused = dict(refused)
        if self.error is not None:
            raise self.error


MakeTransport = Callable[..., Transport]


@pytest.fixture
def fence() -> Fence:
    return Fence()


@pytest.fixture
async def transport_to() -> AsyncIterator[MakeTransport]:
    """Make a transport to a server with .host and .port; it is closed after the test."""
    made: list[Transport] = []

    def make(server: Any, **options: Any) -> Transport:
        made.append(Transport(server.host, server.port, **{"timeouts": PATIENT, **options}))
        return made[-1]

    yield make
    for transport in made:
        await transport.close(grace=0.2)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's TLS settings that believe the test authority and check the name."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS settings with a good certificate for 127.0.0.1."""
    return server_context(authority.issue_cert("127.0.0.1", "localhost"))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Run on uvloop, as workers do; what touches transports most runs on asyncio's own loop as well."""
    both = Path(str(item.fspath)).name in {"test_fence.py", "test_tls.py"}
    return {"uvloop": uvloop.new_event_loop} | ({"asyncio": asyncio.new_event_loop} if both else {})
