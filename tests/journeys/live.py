"""Two clients of a live feed over real sockets: server-sent events, and a WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

WITHIN = 60.0  # seconds


class Line:
    """What a stream told so far: (event, id, data) in order; it is over when `over` is set."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None, Any]] = []
        self.over = asyncio.Event()
        self.close_code: int | None = None
        self._more = asyncio.Event()

    def take(self, event: str, id: str | None, data: Any) -> None:
        """One more event."""
        self.told.append((event, id, data))
        self._more.set()

    def end(self) -> None:
        """There will be no more."""
        self.over.set()
        self._more.set()

    @property
    def ids(self) -> list[str]:
        """The ids of the notifications."""
        return [str(id) for event, id, _ in self.told if event == "notification"]

    async def until(self, count: int) -> None:
        """Wait for so many notifications."""
        async with asyncio.timeout(WITHIN):
            while len(self.ids) < count:
                assert not self.over.is_set(), f"the stream ended after {self.told}"
                self._more.clear()
                await self._more.wait()

    async def ready(self) -> None:
        """Wait until the stream has begun."""
        async with asyncio.timeout(WITHIN):
            while not any(event == "ready" for event, _, _ in self.told):
                assert not self.over.is_set(), f"the stream ended after {self.told}"
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def by_sse(client: httpx.AsyncClient, path: str, last: str | None = None) -> AsyncIterator[Line]:
    """Follow by server-sent events."""
    line = Line()
    task = asyncio.create_task(_sse(client, path, {} if last is None else {"Last-Event-ID": last}, line))
    try:
        await line.ready()
        yield line
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _sse(client: httpx.AsyncClient, path: str, headers: dict[str, str], line: Line) -> None:
    fields: dict[str, str] = {}
    try:
        async with client.stream("GET", path, headers=headers, timeout=None) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for text in answer.aiter_lines():
                if text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    line.take(fields["event"], fields.get("id"), json.loads(fields["data"]))
                    fields = {}
                else:
                    fields = {}
    except httpx.TransportError:
        pass
    finally:
        line.end()


@asynccontextmanager
async def by_websocket(url: str) -> AsyncIterator[Line]:
    """Follow by WebSocket; `url` is http:// and carries the token."""
    line = Line()
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    connection = WSConnection(ConnectionType.CLIENT)
    writer.write(connection.send(Request(host=str(parts.netloc), target=f"{parts.path}?{parts.query}")))
    task = asyncio.create_task(_websocket(reader, writer, connection, line))
    try:
        await line.ready()
        yield line
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()


async def _websocket(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: WSConnection, line: Line
) -> None:
    text = ""
    try:
        while data := await reader.read(65_536):
            connection.receive_data(data)
            for event in connection.events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        told, text = json.loads(text), ""
                        line.take(told["event"], str(told["id"]) if "id" in told else None, told.get("data"))
                elif isinstance(event, CloseConnection):
                    line.close_code = event.code
                    writer.write(connection.send(event.response()))
                    return
                else:
                    assert isinstance(event, AcceptConnection), event
    except ConnectionError:
        pass
    finally:
        line.end()
