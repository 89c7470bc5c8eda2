"""Our intake as Celery's consumer sees it: an object with the verbs of a kombu consumer."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from callboard_workers.actors.actor import registry
from callboard_workers.celery.broker_url import redis_url
from callboard_workers.celery.events import TaskEvents
from callboard_workers.celery.results import Results
from callboard_workers.celery.router import Desk
from callboard_workers.celery.signals import Announcer
from callboard_workers.redis import address
from callboard_workers.redis.fetcher import Intake
from callboard_workers.redis.keys import Keys
from callboard_workers.redis.watchdog import Watchdog

if TYPE_CHECKING:
    from callboard_workers.redis.in_flight import Parcel


class Front:
    """One for each worker process; lives from the first connection to the end. Main thread, unless said otherwise."""

    on_message: Any = None  # Celery's loop sets it: we call the handler we made ourselves

    def __init__(self, c: Any) -> None:
        app, pool = c.app, c.pool
        self.pool = pool
        self.options = app.worker_options
        self.keys = Keys(app.conf.broker_transport_options.get("global_keyprefix", ""))
        self.owner = f"{c.hostname}#{os.getpid()}-{uuid4().hex[:8]}"
        self.url = redis_url(app) or ""
        self.desk = Desk(c)
        self._consumed = {queue.name: queue for queue in app.amqp.queues.consume_from.values()}
        self.intake: Intake = pool.thread.run(self._make(), timeout=10)
        self.watchdog = Watchdog(
            self.url,
            self.keys,
            lambda: self.intake.holdings.owner,
            pool.thread,
            lease=self.options.lease,
            max_crashes=self.desk.max_crashes,
            lost=self._mourn,
            failed=self.desk.fail,
            queues=lambda: self.intake.queues,
            declared=lambda: sorted({actor.queue for actor in registry}),
        )
        self._started = False
        self.redis = address.client(self.url, socket_timeout=2, socket_connect_timeout=2, protocol=2)
        """For remote control, on the main thread."""

    async def _make(self) -> Intake:
        intake = Intake(
            self.url,
            self.keys,
            self.owner,
            lease=self.options.lease,
            room=self._room,
            handle=self.desk.handle,
            lost=self._lose,
        )
        self.desk.intake = intake
        self.events = TaskEvents(self.desk.app, self.url, self.keys, self.desk.hostname)
        self.desk.results = Results.of(self.desk.app)
        self.desk.announcer = Announcer(self.desk.consumer, self.events)
        return intake

    def _room(self) -> int:
        """Messages that may be in hand; with `--autoscale` its maximum, or it would never see a reason to grow."""
        most: int = self.desk.consumer.controller.max_concurrency or 0
        limit: int = self.pool.limit
        return max(limit, most)

    def _lose(self, parcels: list[Parcel]) -> None:
        """Loop thread: another worker took our messages over; those without a row must not run twice for longer."""
        self.desk.attempts.cancel_all("lease lost", durable=False)

    def _mourn(self, key: str, envelope: bytes) -> None:
        """Loop thread: a worker died with a message that has no row; its middleware is told, as of one that has."""
        runtime = self.pool.runtime
        if runtime is not None and (message := self.desk.message_of(key, envelope)) is not None:
            runtime.lost(message)

    def open(self, c: Any) -> None:
        """Takes the strategies of a (re)started consumer; the first time, begins to fetch."""
        self.desk.stock.open(c.create_task_handler())
        if not self._started:
            self._started = True
            self.watchdog.start()
            self.pool.thread.run(self._begin(), timeout=10)

    async def _begin(self) -> None:
        for name in self._consumed:
            self.intake.add_queue(name)
        self.intake.start()

    @property
    def queues(self) -> list[Any]:
        """The queues consumed from, as kombu declares them (`inspect active_queues`)."""
        return list(self._consumed.values())

    @property
    def channel(self) -> Any:
        """There is none: messages do not come through the main connection."""
        return None

    def consume(self, no_ack: bool | None = None) -> None:
        """Nothing: fetching does not depend on the main connection."""

    def qos(self, **_: Any) -> None:
        """Nothing: what may be in hand is counted, not prefetched."""

    def consuming_from(self, queue: Any) -> bool:
        """Whether a queue is consumed from."""
        return getattr(queue, "name", queue) in self._consumed

    def add_queue(self, queue: Any) -> None:
        """Consumes from one more queue."""
        self._consumed[queue.name] = queue
        self.pool.thread.call_soon(self.intake.add_queue, queue.name)

    def cancel_by_queue(self, queue: str) -> None:
        """Consumes from it no more."""
        self._consumed.pop(queue, None)
        self.pool.thread.call_soon(self.intake.cancel_queue, queue)

    def cancel(self) -> None:
        """Fetches nothing more."""
        self.pool.thread.call_soon(self.intake.stop_fetching)

    def close(self) -> None:
        """The pool closes the intake, after the last attempt."""

    @property
    def busy(self) -> bool:
        """Whether anything is in hand."""
        return bool(self.intake.holdings.in_hand)

    def give_back(self, *, all: bool = False) -> None:
        """Fetches nothing more and gives back what has passed no fence, see Attempts.give_back; loop thread."""
        self.intake.stop_fetching()
        self.desk.attempts.give_back(all=all)

    def cancel_attempts(self) -> None:
        """Cancels what runs natively; it is given back."""
        self.pool.thread.call_soon(self.desk.attempts.cancel_all, "shutdown")

    def finish(self) -> None:
        """Gives back what is still in hand, settles with Redis and signs off; the loop must still run."""
        self.pool.thread.run(self._finish(), timeout=self.options.farewell * 3)
        self.watchdog.stop()
        self.redis.close()

    async def _finish(self) -> None:
        await asyncio.sleep(0)
        if self.desk.results is not None:
            await self.desk.results.close(self.options.farewell)
        for parcel in tuple(self.intake.holdings.in_hand.values()):
            self.intake.holdings.put_back(parcel)
        await self.intake.stop(self.options.farewell)
        await self.events.close()

    def info(self) -> dict[str, Any]:
        """For `inspect stats`."""
        return {
            "intake": {
                "owner": self.intake.holdings.owner,
                "in_hand": len(self.intake.holdings.in_hand),
                "up": self.intake.up,
                "loop_lag": round(self.watchdog.lag, 3),
            }
        }
