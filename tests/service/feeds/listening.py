"""An ASGI client that reads a stream as it comes, as slowly as a test likes: SSE and WebSocket, in this process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings


class Told:
    """One event."""

    def __init__(self, name: str, data: Any, id: str | None) -> None:
        self.name, self.data, self.id = name, data, id

    def __repr__(self) -> str:
        return f"<{self.name} {self.id} {self.data}>"


class Listener:
    """One stream: `await listener.next("notification")`. It takes nothing while `paused`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.close_code: int | None = None
        self.over = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self.events: asyncio.Queue[Told] = asyncio.Queue()
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}
        self.incoming.put_nowait(first)

    async def send(self, message: Any) -> None:
        """Take what the application sends, when it is not paused."""
        await self.taking.wait()
        match message["type"]:
            case "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            case "http.response.body":
                self._read(message.get("body", b""))
                if not message.get("more_body"):
                    self._end()
            case "websocket.send":
                told = json.loads(message["text"])
                self.events.put_nowait(Told(told["event"], told.get("data"), str(told["id"]) if "id" in told else None))
            case "websocket.close":
                self.close_code = message.get("code", 1000)
                self._end()

    def _end(self) -> None:
        self.over.set()
        self.events.put_nowait(Told("", None, None))

    def _read(self, body: bytes) -> None:
        self.body += body
        *frames, self.body = self.body.split(b"\n\n")
        for frame in frames:
            fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
            if b"event" in fields:
                id = fields.get(b"id")
                data = json.loads(fields[b"data"])
                self.events.put_nowait(Told(fields[b"event"].decode(), data, id.decode() if id else None))

    def hang_up(self) -> None:
        """Go away."""
        gone = "websocket.disconnect" if self.kind == "websocket" else "http.disconnect"
        self.incoming.put_nowait({"type": gone, "code": 1001})

    async def next(self, name: str, within: float = 30.0) -> Told:
        """The next event of this name; others before it are passed over."""
        async with asyncio.timeout(within):
            while (told := await self.events.get()).name != name:
                assert told.name, f"the stream is over: {self.status} {self.body!r} {self.close_code}"
        return told

    async def several(self, count: int) -> list[Told]:
        """The next notifications."""
        return [await self.next("notification") for _ in range(count)]


def state_of(api: httpx.AsyncClient) -> Any:
    """The state of the application behind `api`, below whatever wraps it."""
    found: Any = api._transport.app  # type: ignore[attr-defined]
    while not hasattr(found, "state"):
        found = found.app
    return found.state


@asynccontextmanager
async def every_connection(settings: Settings, engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold every connection of a pool, each taken as another gives it back."""
    async with AsyncExitStack() as held, asyncio.timeout(60):
        taken = 0
        while taken < settings.db_pool_size:
            with suppress(PoolTimeout):
                await held.enter_async_context(engine.connect())
                taken += 1
        yield


async def until_logged(logs: list[Any], event: str) -> None:
    """Wait until an event was logged."""
    async with asyncio.timeout(60):
        while event not in [entry["event"] for entry in logs]:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def listen(api: httpx.AsyncClient, path: str, *, kind: str = "http", **headers: str) -> AsyncIterator[Listener]:
    """Open a stream of the application behind `api`; it is hung up at the end."""
    app: Any = api._transport.app  # type: ignore[attr-defined]
    url = urlsplit(path)
    given = {"host": "callboard.test", "authorization": api.headers.get("authorization", ""), **headers}
    found = Listener(kind)
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": url.path,
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items() if value],
        "client": ("127.0.0.1", 1),
        "server": ("callboard.test", 80),
        "state": {},
    }
    scope |= {"method": "GET"} if kind == "http" else {"subprotocols": []}
    task = asyncio.create_task(app(scope, found.incoming.get, found.send))
    try:
        yield found
    finally:
        found.taking.set()
        found.hang_up()
        await asyncio.wait([task], timeout=30)
        assert task.done(), "the stream did not end when its caller went"
        task.result()
