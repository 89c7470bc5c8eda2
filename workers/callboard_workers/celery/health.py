"""A worker's own HTTP answers: `/live` (the loop turns), `/ready` (broker and database answer), `/metrics`.

Served by the loop itself: while it stands still there is no answer, and that is the answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from callboard_workers.celery.pool import Pool

log = structlog.get_logger(__name__)

Answer = tuple[int, str, bytes]

REQUEST = 5.0
"""Seconds a client has for its request, and a check for its answer."""
REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Health:
    """Answers GET requests, one a connection."""

    def __init__(self, pool: Pool, host: str, port: int) -> None:
        self.port = port
        self._pool = pool
        self._host = host
        self._server: asyncio.Server | None = None
        self._routes: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/live": self._live,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }

    async def start(self) -> None:
        """Listens; a port that is taken is an error that names it."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=8192)
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("health_listening", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST * 2):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                status, kind, body = await self._answer(method, path.partition("?")[0])
                lines = (
                    f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                )
                writer.write(lines.encode() + b"Connection: close\r\n\r\n" + (b"" if method == "HEAD" else body))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
            pass  # a client that is no client
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return _json(405, error="only GET")
        route = self._routes.get(path)
        return await route() if route is not None else _json(404, routes=sorted(self._routes))

    async def _live(self) -> Answer:
        stuck = len(self._pool.runtime.stuck) if self._pool.runtime is not None else 0
        return _json(200, status="live", running=self._pool.running, stuck=stuck)

    async def _ready(self) -> Answer:
        checks = {"broker": self._pool.front is None or self._pool.front.intake.up, "database": await self._database()}
        ready = all(checks.values()) and not self._pool.closing
        return _json(200 if ready else 503, status="ready" if ready else "not ready", **checks)

    async def _database(self) -> bool:
        runtime = self._pool.runtime
        if runtime is None or runtime.engine is None:
            return True
        try:
            async with asyncio.timeout(REQUEST), runtime.engine.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
        except Exception as error:
            log.warning("database_unready", error=repr(error)[:200])
            return False
        return True

    async def _metrics(self) -> Answer:
        return 200, CONTENT_TYPE_LATEST, generate_latest()


def _json(code: int, **fields: object) -> Answer:
    return code, "application/json", json.dumps(fields).encode()
