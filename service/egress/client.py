"""One HTTP request to an address that somebody else chose, within strict bounds.

No redirect is followed, no proxy of the environment used, nothing decompressed. The whole call has 15 s, from the name
to the last byte; headers and body have 64 KiB each. What is over that is not read, and its connection is closed.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping

import certifi
import httpcore
import msgspec

from service.egress.connections import Budget, Exhausted, Lines, budget
from service.egress.resolver import Guard
from service.egress.urls import AddressRefused, Target

WITHIN = 15.0  # seconds
CONNECT_WITHIN = 5.0
HEADERS = 64 * 1024  # bytes
BODY = 64 * 1024
SHOWN = 2_000  # characters of a body that are kept
CONNECTIONS = 200
IDLE = 30.0  # seconds that a connection is kept for the next call


class Answer(msgspec.Struct, frozen=True):
    """What came back: the beginning of the body as text, and how long it all took."""

    status: int
    headers: dict[str, str]
    body: str
    ms: float


class CallFailed(Exception):
    """No answer; `code` is one of timeout, refused, connect, tls, protocol, too-large, and the message says more."""

    def __init__(self, code: str, detail: str, ms: float) -> None:
        super().__init__(detail)
        self.code = code
        self.ms = ms


class Caller:
    """Makes calls on one loop; `tls` is another TLS context than that of the public authorities."""

    def __init__(self, guard: Guard, *, within: float = WITHIN, tls: ssl.SSLContext | None = None) -> None:
        self.guard = guard
        self._within = within
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or _context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS // 4,
            keepalive_expiry=IDLE,
            http1=True,
            http2=False,
            network_backend=Lines(guard),
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a POST. Raises CallFailed; any status that is answered is an Answer."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._within):
                return await self._post(self.guard.target(url), body, headers, began)
        except Exception as error:
            code, detail = _explain(error, self._within)
            raise CallFailed(code, detail, _since(began)) from error

    async def _post(self, target: Target, body: bytes, headers: Mapping[str, str], began: float) -> Answer:
        allowed = Budget(HEADERS)
        before = budget.set(allowed)
        sent = {"Host": target.authority, "Accept-Encoding": "identity", "Content-Length": str(len(body)), **headers}
        limits = {"connect": CONNECT_WITHIN, "read": self._within, "write": self._within, "pool": self._within}
        try:
            async with self._pool.stream(
                "POST", target.url, headers=list(sent.items()), content=body, extensions={"timeout": limits}
            ) as response:
                allowed.left = BODY
                text = await _beginning(response)
                found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                return Answer(response.status, found, text, _since(began))
        finally:
            budget.reset(before)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
        self.guard.close()


async def _beginning(response: httpcore.Response) -> str:
    """Read a body as far as its budget goes. One that breaks off is as good as its beginning: the status was said."""
    parts: list[bytes] = []
    try:
        async for part in response.aiter_stream():
            parts.append(part)  # noqa: PERF401 (what came before it breaks off is kept)
    except (httpcore.ReadError, httpcore.RemoteProtocolError):
        pass
    text = b"".join(parts).decode("utf-8", "replace")
    return text.replace("\x00", "\ufffd")[:SHOWN]


def _explain(error: Exception, within: float) -> tuple[str, str]:  # noqa: PLR0911 (one answer per kind of error)
    """Say in one word and one sentence why there was no answer; the sentence names no address of the inside."""
    cause = _tls_error(error)
    if isinstance(error, AddressRefused):
        return "refused", str(error)
    if cause is not None:
        return "tls", f"The certificate or the TLS handshake is bad: {cause.reason or type(cause).__name__}."
    if isinstance(error, Exhausted):
        return "too-large", f"The headers of the answer are over {HEADERS} bytes."
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        return "timeout", f"No whole answer within {within:g} s."
    if isinstance(error, httpcore.ConnectError | OSError):
        return "connect", "No connection: the name does not resolve, or nobody listens there."
    if isinstance(error, httpcore.NetworkError):
        return "connect", "The connection broke before there was an answer."
    return "protocol", f"What came back is not an HTTP answer ({type(error).__name__})."


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
