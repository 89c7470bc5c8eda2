"""`/v1/users/{id}/stream` and `/ws`: a feed as it happens, by server-sent events or WebSocket; the same events."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import msgspec
import structlog
from litestar import Response, Router, WebSocket, get, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath
from litestar.types import Receive, Scope, Send

from callboard_workers.context import correlation
from service.core.errors import BadRequest, Unauthenticated
from service.feeds import repository, stream_tokens
from service.feeds.follow import as_sse, as_text, follow
from service.feeds.live import Live, Seat
from service.users import lookup
from service.users.identifiers import unknown_user
from service.web import Request
from service.web.auth import Keyring, Principal, authorize, plain_header
from service.web.problem_details import problem, translate

log = structlog.get_logger("service.notifications")

PATIENCE = 30.0  # seconds that a reader may take for one write, then it is cut off
OPENING = 10.0  # seconds until a stream that cannot begin, behind all that come back at once, is refused
SCOPE = "feed:read"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"access-control-allow-origin", b"*"),
]
RESTART, TRY_AGAIN, REFUSED = 1012, 1013, 4000  # WebSocket close codes (RFC 6455, 7.4); refusals: 4000 + HTTP status

Connection = ASGIConnection[Any, Any, Any, Any]


class Stalled(Exception):
    """The reader takes nothing."""


@contextlib.asynccontextmanager
async def patience(seconds: float | None = None) -> AsyncIterator[None]:
    """Give a reader PATIENCE seconds to take what is sent. Raises Stalled, which no server's silence is taken for."""
    try:
        async with asyncio.timeout(PATIENCE if seconds is None else seconds):
            yield
    except TimeoutError as error:
        raise Stalled from error


@get(
    "/users/{user_id:str}/stream",
    summary="Follow a feed",
    media_type="text/event-stream",
)
async def stream(request: Request, user_id: FromPath[str]) -> Response[bytes]:
    """Send a user's feed as server-sent events: `ready`, what came after `Last-Event-ID`, then each item as it comes.

    An event's id is its number in the feed; a caller that comes back with the last one misses nothing and is told
    nothing twice. Without one the stream begins now; `?last_event_id=` says the same as the header. Authorization is
    an API key with `feed:read`, or `?token=` of `…/stream-token`. A reader that falls far behind gets `lagged`, and
    the stream ends: come back for the rest.
    """
    no, seq = await _begin(request, user_id)
    live = Live.of(request.app.state.runtime)
    live.check(request.user.key_id)
    return EventStream(live, request.app.state.keyring, request.user, no, seq)


class EventStream(Response[bytes]):
    """A feed as an HTTP response."""

    def __init__(self, live: Live, keyring: Keyring, caller: Principal, no: int, seq: int) -> None:
        super().__init__(b"", media_type="text/event-stream")
        self._live, self._keyring, self._caller, self._no, self._seq = live, keyring, caller, no, seq

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """Make the ASGI application that sends it."""
        return self._send

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        key_id = self._caller.key_id
        with self._live.seat(key_id, self._no) as seat, self._keyring.watch(key_id, seat.end):
            watching = asyncio.create_task(_until_gone(receive, seat))
            try:
                await self._write(seat, send)
            except Stalled:
                log.info("stream_stalled", seconds=PATIENCE)
                return  # without an end: the server cuts the line
            except Exception:
                log.exception("stream_failed", hint="its reader comes back by itself")
                return
            finally:
                watching.cancel()
            if not seat.gone:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, seat: Seat, send: Send) -> None:
        head = b"retry: 1000\n\n"
        async with aclosing(follow(self._live, seat, self._seq)) as pages:
            async for events in pages:
                async with patience():
                    await send({"type": "http.response.body", "body": head + as_sse(events), "more_body": True})
                head = b""


async def _until_gone(receive: Receive, seat: Seat) -> None:
    """Wait for the caller to go: a server goes on taking what is sent to nobody."""
    while (await receive())["type"] != "http.disconnect":
        pass
    seat.leave()


@websocket("/users/{user_id:str}/ws")
async def socket(socket: WebSocket[Any, Any, Any], user_id: FromPath[str]) -> None:
    """Send a user's feed as WebSocket messages `{"event", "id", "data"}`; see `stream`."""
    await socket.accept()
    try:
        no, seq = await _begin(socket, user_id)
        live = Live.of(socket.app.state.runtime)
        key_id, keyring = socket.user.key_id, socket.app.state.keyring
        with live.seat(key_id, no) as seat, keyring.watch(key_id, seat.end):
            await _serve(socket, live, seat, seq)
    except (WebSocketDisconnect, ConnectionError):
        return
    except Exception as error:
        await _refuse(socket, error)


async def _serve(socket: WebSocket[Any, Any, Any], live: Live, seat: Seat, seq: int) -> None:
    watching = asyncio.create_task(_until_closed(socket, seat))
    lagged = False
    try:
        async with aclosing(follow(live, seat, seq)) as pages:
            async for events in pages:
                for event in events:
                    async with patience():
                        await socket.send_text(as_text(event))
                    lagged = event.name == "lagged"
        if not seat.gone:
            watching.cancel()  # the server sends no close frame while somebody waits to receive
            await asyncio.gather(watching, return_exceptions=True)
            async with patience(1):
                await socket.close(TRY_AGAIN if lagged else RESTART, "come back for the rest")
    except Stalled:
        log.info("stream_stalled", seconds=PATIENCE)
    finally:
        watching.cancel()


async def _until_closed(socket: WebSocket[Any, Any, Any], seat: Seat) -> None:
    """Wait for the caller to go; what it says is not listened to."""
    with contextlib.suppress(WebSocketDisconnect):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    seat.leave()


async def _refuse(socket: WebSocket[Any, Any, Any], error: Exception) -> None:
    """Tell why, as the HTTP route would, and close."""
    known = translate(error)
    if known.status >= 500:
        log.warning("stream_refused", code=known.code, error=f"{type(error).__name__}: {error}"[:300])
    request_id = str(cast("Any", socket.scope).get("request_id", ""))
    told = {"event": "error", "data": problem(request_id, known)}
    with contextlib.suppress(WebSocketDisconnect, ConnectionError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await socket.send_text(msgspec.json.encode(told).decode())
            await socket.close(REFUSED + known.status, known.code)


async def _begin(connection: Connection, user_id: str) -> tuple[int, int]:
    """Find who asks for whose feed, and from where. Raises Unauthenticated, Forbidden, NotFound, BadRequest."""
    caller = await _admit(connection, user_id)
    live = Live.of(connection.app.state.runtime)
    async with asyncio.timeout(OPENING), live.looks, connection.app.state.engine.begin() as opened:
        person = await lookup.find(opened, caller.tenant_id, caller.mode, user_id)
        last = None if person is None else await repository.number(opened, person.no)
    if person is None or last is None:
        raise unknown_user()
    return person.no, _seq(connection, last)


async def _admit(connection: Connection, user_id: str) -> Principal:
    token = connection.query_params.get("token")
    if token is None:
        await authorize(connection, [SCOPE])
        return cast("Principal", connection.scope["user"])
    grant = stream_tokens.read(connection.app.state.settings.secret_key, token, time.time())
    if grant is None or grant.user_id != user_id:
        raise Unauthenticated("The stream token is forged, over, or another user's: make a new one.", code="bad-token")
    if not await connection.app.state.keyring.is_good(grant.key_id):
        raise Unauthenticated("The key that made this stream token is revoked or expired.", code="bad-token")
    caller = Principal(grant.tenant_id, grant.key_id, frozenset({SCOPE}), grant.mode)
    connection.scope["user"] = caller
    correlation.set(msgspec.structs.replace(correlation.get(), tenant_id=caller.tenant_id))
    return caller


def _seq(connection: Connection, last: int) -> int:
    """The number to go on from: the caller's, or the newest there is. Raises BadRequest for one that never was."""
    given = plain_header(connection, b"last-event-id") or connection.query_params.get("last_event_id", "")
    if not given:
        return last
    if not given.isascii() or not given.isdigit() or len(given) > 18 or int(given) > last:
        raise BadRequest("Last-Event-ID is none of this feed: begin again without it.", code="bad-last-event-id")
    return int(given)


router = Router("/v1", route_handlers=[stream, socket], tags=["Feeds"])
