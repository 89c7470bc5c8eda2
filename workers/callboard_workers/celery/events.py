"""Task events, in batches, by the loop's own connection: watching a worker must not slow it down.

What is published is what Celery's dispatcher publishes for its buffered group (`celery.events.dispatcher`,
`kombu.transport.redis.Channel._put_fanout`).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import structlog
from celery.utils.time import utcoffset

from callboard_workers.errors import BrokerUnavailable
from callboard_workers.redis import address
from callboard_workers.redis.connection import Link
from callboard_workers.redis.protocol import envelope

if TYPE_CHECKING:
    from callboard_workers.redis.keys import Keys

log = structlog.get_logger(__name__)

GATHER = 0.05
"""Seconds for which events are gathered."""
BATCH = 500
"""Events in one message."""
BUFFER = 20_000
"""Events kept while the broker does not answer; the newest are dropped then."""
ROUTE = "task.multi"

_encode = msgspec.json.Encoder(enc_hook=repr).encode


class TaskEvents:
    """Gathers events on the loop thread and publishes them; nobody ever waits for it."""

    def __init__(self, app: Any, url: str, keys: Keys, hostname: str) -> None:
        self.dropped = 0
        self._clock = app.clock
        self._exchange = app.conf.event_exchange
        self._topic = f"{keys.prefix}/{address.database(url)}.{self._exchange}/{ROUTE}"
        self._link = Link(url)
        self._always = {"hostname": hostname, "utcoffset": utcoffset(), "pid": os.getpid()}
        self._events: list[dict[str, Any]] = []
        self._task: asyncio.Task[None] | None = None

    def send(self, type: str, **fields: Any) -> None:
        """Takes one event."""
        if len(self._events) >= BUFFER:
            self.dropped += 1
            return
        self._events.append(
            {"type": type, "timestamp": time.time(), "clock": self._clock.forward(), **self._always, **fields}
        )
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._publish(), name="task events")

    async def close(self) -> None:
        """Publishes what was gathered, and closes the connection."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=1.0)
        await self._link.close()

    async def _publish(self) -> None:
        try:
            while self._events:
                if len(self._events) < BATCH:
                    await asyncio.sleep(GATHER)
                batch, self._events = self._events[:BATCH], self._events[BATCH:]
                await self._link.call([("PUBLISH", self._topic, self._message(batch))], 5.0)
        except BrokerUnavailable as error:
            log.warning("events_lost", error=str(error))
        finally:
            self._task = None

    def _message(self, batch: list[dict[str, Any]]) -> bytes:
        properties = {
            "delivery_mode": 1,
            "delivery_info": {"exchange": self._exchange, "routing_key": ROUTE},
            "priority": 0,
            "body_encoding": None,
            "delivery_tag": str(uuid4()),
        }
        return envelope(_encode(batch).decode(), {"hostname": self._always["hostname"]}, properties)
