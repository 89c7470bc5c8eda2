"""The request as handlers see it: its body is decoded strictly into the struct that the handler declares."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar, cast

from litestar import Request as LitestarRequest
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.errors import BadRequest, ServiceError, TooLarge, Unavailable, UnsupportedMedia
from service.db import engine
from service.web.auth import Principal, plain_header
from service.web.json_body import decode, read

T = TypeVar("T")

BODY_WITHIN = 30.0  # seconds
PLAIN_BYTES = 1024 * 1024  # of a body, but on routes with `large_body()`: there BODY_LIMIT holds alone
LARGE_BODY = "large_body"
INLINE_BYTES = 64 * 1024  # of a body that is decoded on the loop, within some 20 ms whatever it holds
DECODING_BYTES = 256 * 1024 * 1024  # of all bodies that wait for the thread that decodes them
LINGER = 1.0  # seconds for which the rest of a refused body is read
LINGER_BYTES = 4 * 1024 * 1024


def large_body() -> dict[str, Any]:
    """Let a route take bodies up to BODY_LIMIT, others take at most 1 MiB: ``@post(…, opt=large_body())``."""
    return {LARGE_BODY: True}


class Decoder:
    """Decodes the large bodies of a process in one thread, while the event loop goes on.

    One, because decoding holds the GIL: a second thread would decode nothing more, and only delay the loop.
    """

    def __init__(self, max_bytes: int = DECODING_BYTES) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoder")
        self._max_bytes = max_bytes
        self._bytes = 0

    async def run(self, function: Callable[[bytes], T], body: bytes) -> T:
        """Return `function(body)`. Raises Unavailable where too many bytes wait, and what `function` raises."""
        if self._bytes + len(body) > self._max_bytes:
            raise Unavailable(
                "Too many large bodies are being read; nothing was accepted. Try again.", code="overloaded"
            )
        self._bytes += len(body)
        future = self._thread.submit(function, body)
        future.add_done_callback(lambda _: self._release(len(body)))
        return await asyncio.wrap_future(future)

    def _release(self, size: int) -> None:
        self._bytes -= size


DECODER = Decoder()


class Request(LitestarRequest[Principal, Any, State]):
    """A request; `request.user` is the Principal on routes guarded by `require(...)`.

    A handler that declares `data: SomeStruct` gets it decoded by `service.web.json_body`; `await request.body()` gives
    the bytes as they came.
    """

    async def body(self, limit: int | None = None) -> bytes:
        """Read the body within 30 seconds. Raises TooLarge (413), ServiceError (408).

        It may have `limit` bytes, or what the route takes: 1 MiB, BODY_LIMIT with `large_body()`; never more than
        BODY_LIMIT.
        """
        known = cast("dict[str, Any]", self.scope)
        if "body" not in known:
            if limit is None and not self.route_handler.opt.get(LARGE_BODY):
                limit = PLAIN_BYTES
            most: int = self.app.state.settings.body_limit
            known["body"] = await self._read_in_time(most if limit is None else min(limit, most))
        return cast("bytes", known["body"])

    async def decoded(self, function: Callable[[bytes], T]) -> T:
        """Return `function` of the body; a large one is decoded in a thread. Raises what `function` raises."""
        body = await self.body()
        return function(body) if len(body) <= INLINE_BYTES else await DECODER.run(function, body)

    async def _read_in_time(self, limit: int) -> bytes:
        # what asyncio.timeout does, for a third of it: nearly every body is there with its headers
        task, late = cast("asyncio.Task[Any]", asyncio.current_task()), False

        def end() -> None:
            nonlocal late
            late = True
            task.cancel()

        clock = asyncio.get_running_loop().call_later(BODY_WITHIN, end)
        try:
            return await self._read(limit)
        except asyncio.CancelledError:
            if not late or task.uncancel():
                raise
            raise ServiceError(
                "The body did not arrive in time.", status=408, code="body-timeout", title="Request timeout"
            ) from None
        finally:
            clock.cancel()

    async def _read(self, limit: int) -> bytes:
        declared = plain_header(self, b"content-length")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            if len(declared) <= 18 and int(declared) <= limit + LINGER_BYTES:
                await self._linger()
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            event = await self.receive()
            if event["type"] != "http.request":
                raise BadRequest("The caller left before the body was whole.", code="body-cut")
            size += len(part := event["body"])
            if size > limit:
                parts.clear()
                if event.get("more_body"):
                    await self._linger()
                raise _too_large(limit)
            parts.append(part)
            if not event.get("more_body"):
                return part if len(parts) == 1 else b"".join(parts)

    async def _linger(self) -> None:
        """Discard the rest of a body that is refused, if that is little and comes soon (RFC 9112, 9.6).

        Who is cut off in the middle of a write may never read the answer; and the server hangs up on what is not read.
        """
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while size < LINGER_BYTES:
                    event = await self.receive()
                    if event["type"] != "http.request" or not event.get("more_body"):
                        return
                    size += len(event["body"])

    async def json(self) -> Any:
        """Decode the body into what the handler declares. Raises UnsupportedMedia (415), BadRequest, Invalid."""
        if "decoded" not in self.scope:
            self.check_media()
            declared = self.route_handler.parsed_data_field
            if not await self.body():
                raise BadRequest("The body must be a JSON object.", code="malformed-json")
            known = declared is not None and declared.annotation is not Any
            how = partial(decode, kind=cast("Any", declared).annotation) if known else read
            value = await self.decoded(how)
            self.scope["decoded"] = value  # type: ignore[typeddict-unknown-key]
        return self.scope["decoded"]  # type: ignore[typeddict-item]

    def check_media(self) -> None:
        """Refuse what is not plain `application/json`: another type (415), an encoded body (415), another charset."""
        headers = cast("dict[str, Any]", self.scope)["plain_headers"]
        if headers.get(b"content-type") == b"application/json" and b"content-encoding" not in headers:
            return
        media, _, parameters = plain_header(self, b"content-type").partition(";")
        if media.strip().lower() != "application/json":
            raise UnsupportedMedia("Send `Content-Type: application/json`.")
        if parameters and parameters.strip().lower().replace('"', "") not in ("", "charset=utf-8", "charset=utf8"):
            raise UnsupportedMedia("JSON is UTF-8: send `Content-Type: application/json`.")
        if plain_header(self, b"content-encoding").strip().lower() not in ("", "identity"):
            raise UnsupportedMedia("Send the body as it is, without Content-Encoding.")

    @property
    def request_id(self) -> str:
        """The id of this request: the caller's X-Request-ID, or one made by the edge."""
        return cast("str", self.scope["request_id"])  # type: ignore[typeddict-item]


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit:,} bytes, the most that this route takes.")


def transaction(request: LitestarRequest[Any, Any, Any]) -> AbstractAsyncContextManager[AsyncSession]:
    """Open the one transaction of this request: ``async with transaction(request) as session``. Nobody else commits."""
    maker: engine.Sessions = request.app.state.sessions
    return engine.transaction(maker)


def integer(name: str, value: str, low: int, high: int) -> int:
    """Parse a whole number of the query string between `low` and `high`. Raises BadRequest."""
    if not value.isascii() or not value.lstrip("-").isdigit() or len(value) > 18 or not low <= int(value) <= high:
        raise BadRequest(f"`{name}` must be a whole number from {low} to {high}.", code=f"bad-{name}")
    return int(value)
