"""A job's changes as server-sent events, read from Postgres: a stream that is cut or moved loses nothing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from uuid import UUID

import msgspec
import structlog

from callboard_workers.runtime import Runtime
from service.core.errors import TooManyRequests
from service.core.logging import Seldom
from service.db.engine import is_away
from service.jobs.schemas import JobOut
from service.jobs.serializers import etag
from service.web.shutdown import when_stopping

log = structlog.get_logger("service.jobs")

KEY = "jobs.streams"
SOONEST, LATEST = 0.1, 1.0  # seconds between two looks; the pause grows while nothing changes
QUIET = 15.0  # seconds after which a comment keeps the line open
FLUSH = 0.1  # seconds from the last word of a stream to the end of its connection
MOST = 500  # streams of one tenant in one process
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Look = Callable[[], Awaitable[JobOut]]


class Streams:
    """The streams of one process; they end when it stops."""

    def __init__(self) -> None:
        self._open: dict[UUID, int] = {}
        self.away = Seldom()
        self._stopping = asyncio.Event()

    @classmethod
    def of(cls, runtime: Runtime) -> "Streams":
        """The streams of a runtime; told to end when it stops."""
        found: Streams | None = runtime.state.get(KEY)
        if found is None:
            found = runtime.state[KEY] = cls()
            runtime.resources.push_async_callback(found.close)
            when_stopping(found.stop)
        return found

    @contextmanager
    def one(self, tenant_id: UUID) -> Iterator[None]:
        """Count a stream of a tenant. Raises TooManyRequests."""
        self.check(tenant_id)
        self._open[tenant_id] = self._open.get(tenant_id, 0) + 1
        try:
            yield
        finally:
            self._open[tenant_id] -= 1
            if not self._open[tenant_id]:
                del self._open[tenant_id]

    def check(self, tenant_id: UUID) -> None:
        """Raise TooManyRequests where a tenant has as many streams as it may."""
        if self._open.get(tenant_id, 0) >= MOST:
            raise TooManyRequests(f"{MOST} streams are open already: poll instead.", retry_after=5)

    async def pause(self, seconds: float) -> bool:
        """Wait; True as soon as the process stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Tell every stream to end."""
        self._stopping.set()

    async def close(self) -> None:
        """End every stream, and give their ends a second to be sent."""
        if not self._open:
            return
        self.stop()
        for _ in range(20):
            await asyncio.sleep(0.05)
            if not self._open:
                break
        await asyncio.sleep(FLUSH)


async def follow(
    runtime: Runtime,
    streams: Streams,
    tenant_id: UUID,
    look: Look,
    seen: str,
    *,
    over: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[bytes, None]:
    """Write an event for each change, until the job has ended; `seen` is the event the caller had last.
    It ends too once `over` says so, which it is asked at each look.

    Each look is a connection taken and given back, and is finished though the caller leaves in the middle of it: a
    cancelled statement would cost the pool its connection. While Postgres is away, or has no connection to spare, the
    line stays open and the looks go on.
    """
    with streams.one(tenant_id):
        pause, said = SOONEST, monotonic()
        while True:
            job = await runtime.to_the_end(_look(look, streams.away))
            if job is not None and (tag := event_id(job)) != seen:
                seen, pause, said = tag, SOONEST, monotonic()
                yield frame(job, tag)
            elif monotonic() - said >= QUIET:
                said = monotonic()
                yield b": nothing new\n\n"
            if (job is not None and job.status.terminal) or await streams.pause(pause) or over():
                return
            pause = min(pause * 1.25, LATEST)


async def _look(look: Look, away: Seldom) -> JobOut | None:
    try:
        return await look()
    except Exception as error:
        if not is_away(error):
            raise
        if away.due():
            log.warning("job_away", error=type(error).__name__, hint="streams of jobs stay open and look again")
        return None


def event_id(job: JobOut) -> str:
    """Make the id of an event: the job's entity tag without its frame."""
    return etag(job)[3:-1]


def frame(job: JobOut, id: str) -> bytes:
    """Write one event: its name is the job's status, its data the job."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (job.status.encode(), id.encode(), msgspec.json.encode(job))
