"""What becomes of each message that was fetched: run by us, run by Celery's tracer, put off, or buried."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from celery.backends.base import DisabledBackend
from celery.worker import state

from callboard_workers.celery.actor_task import ActorTask
from callboard_workers.celery.attempt import Attempts, priority_of
from callboard_workers.celery.fallback import StockRoute
from callboard_workers.celery.request import NativeRequest
from callboard_workers.message import Message, Priority
from callboard_workers.metrics import REJECTED, UNSIGNED
from callboard_workers.redis.crash_isolation import Suspects
from callboard_workers.redis.decode import Poison, Received, is_plain, moment, read, read_body
from callboard_workers.redis.delivery import delivery_of
from callboard_workers.redis.protocol import DOORBELL_BODY, SEPARATOR
from callboard_workers.redis.signing import body_bytes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from callboard_workers.celery.pool import Pool
    from callboard_workers.celery.results import Results
    from callboard_workers.celery.signals import Announcer
    from callboard_workers.redis.fetcher import Intake
    from callboard_workers.redis.in_flight import Parcel

log = structlog.get_logger(__name__)

NEAR = 0.02
"""A message due within so many seconds is due."""


class Desk:
    """Handles parcels on the loop thread, one call each, and keeps what is running."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.app = app = consumer.app
        self.pool: Pool = consumer.pool
        self.hostname: str = consumer.hostname
        self.intake: Intake
        self.announcer: Announcer
        self.results: Results | None = None
        self.attempts = Attempts(self)
        self.stock = StockRoute(self)
        self._suspects = Suspects()
        self._tasks = app.tasks
        self._signer = app.worker_options.signer
        self._has_backend = not isinstance(app.backend, DisabledBackend)

    def max_crashes(self, name: str) -> int:
        """How often workers may die of a message without a row: as its actor says, else as this worker was told.

        What has no name here is for those to bury who can run it.
        """
        task = self._tasks.get(name)
        if task is None:
            return sys.maxsize
        told: int = self.app.worker_options.max_crashes
        return task.actor.policy.max_crashes if isinstance(task, ActorTask) else told

    def message_of(self, key: str, envelope: bytes) -> Message | None:
        """The message of an actor known here, as it stands in the list `key`; its arguments are left out."""
        try:
            received = read(envelope)
        except Poison:
            return None
        if not isinstance(self._tasks.get(received.name), ActorTask):
            return None
        queue = key.removeprefix(self.intake.keys.prefix).partition(SEPARATOR)[0]
        found = delivery_of(received.id, received.name, (), {}, received.headers, queue=queue)
        priority = Priority.of(priority_of(key))
        return Message(id=found.id, actor=found.actor, queue=queue, priority=priority, headers=found.headers)

    def handle(self, parcel: Parcel) -> None:
        """Looks at one message and sends it its way; never raises."""
        received: Received | None = None
        try:
            received = read(parcel.envelope)
            self._sort(parcel, received)
        except Poison as poison:
            self._reject(parcel)
            self.bury(parcel, str(poison), forged=not self._is_ours(received))
            self._store_failure(received, str(poison))
        except Exception as error:
            log.exception("message_unreadable")
            self._reject(parcel)
            self.bury(parcel, f"{type(error).__name__}: {error}", forged=not self._is_ours(received))

    def fail(self, envelope: bytes, reason: str) -> None:
        """Stores the failure of a message that is buried without another attempt: it has cost too many workers."""
        with suppress(Poison):
            self._store_failure(read(envelope), reason)

    def _store_failure(self, received: Received | None, reason: str) -> None:
        if self.results is not None and received is not None and not received.headers.get("ignore_result"):
            self.results.fail(received.id, reason)

    def bury(self, parcel: Parcel, reason: str, *, forged: bool = False) -> None:
        """Puts a message with the dead letters, with its reason; one that is `forged` apart from the others."""
        queue = parcel.key.partition(SEPARATOR)[0]
        log.error("message_buried", queue=queue, reason=reason[:500], hint="celery control requeue_dead puts it back")
        letter = {"reason": reason[:2000], "at": time.time(), "key": parcel.key, "envelope": parcel.envelope}
        self.intake.holdings.bury(parcel, msgspec.msgpack.encode(letter), forged=forged)
        self.intake.settled()

    def _reject(self, parcel: Parcel) -> None:
        """Counts a message nobody here can run; its name is anybody's invention, so it is no label."""
        queue = parcel.key.removeprefix(self.intake.keys.prefix).partition(SEPARATOR)[0]
        REJECTED.labels("unknown", queue).inc()

    def _sort(self, parcel: Parcel, received: Received) -> None:
        if wait := self._wait(received):
            self.intake.holdings.park(parcel, wait)
            self.intake.settled()
            return
        task = self._tasks.get(received.name)
        if task is None:
            raise Poison(f"no task is named {received.name!r}: is the module that declares it deployed here?")
        args, kwargs, embed = read_body(received)
        self._check(task, received)
        begin: Callable[[], asyncio.Task[None] | None]
        if self._is_native(task, received, embed):
            begin = partial(self._run, parcel, received, task, args, kwargs)
        else:
            begin = partial(self.stock.pass_on, parcel, received)
        if received.headers.get("doubt") and received.headers.get("durable") is not True:
            self._suspects.add(self.intake.holdings, parcel, begin)
            self.intake.settled()
        else:
            begin()

    def _check(self, task: Any, received: Received) -> None:
        """Raises Poison for a direct message that nobody signed who has a key; a doorbell's row is its warrant."""
        if self._signer is None:
            return
        bell = received.headers.get("durable") is True and received.payload["body"] == DOORBELL_BODY
        if bell and isinstance(task, ActorTask):
            return
        if not self._signer.accepts(received.headers, body_bytes(received.payload, received.properties)):
            UNSIGNED.inc()
            raise Poison("it bears no signature of our keys (TASK_SIGNING_KEYS)")

    def _is_ours(self, received: Received | None) -> bool:
        """Whether a message that cannot run was signed with our keys; without keys, every message counts as ours."""
        if self._signer is None:
            return True
        try:
            return received is not None and self._signer.accepts(
                received.headers, body_bytes(received.payload, received.properties)
            )
        except Exception:  # whatever is wrong with its body, nobody of ours signed it
            return False

    def _wait(self, received: Received) -> float:
        """Seconds until the message is due, by Redis' clock; 0 when it is."""
        eta = moment(received.headers.get("eta"))
        if eta is None:
            return 0.0
        wait = eta.timestamp() - time.time() - self.intake.clock_offset
        return wait if wait > NEAR else 0.0

    def _is_native(self, task: Any, received: Received, embed: dict[str, Any]) -> bool:
        return (
            isinstance(task, ActorTask)
            and (self.results is not None or not self._keeps_result(task, received))
            and is_plain(received.headers, embed)
            and self.consumer.task_buckets[task.name] is None
            and task.time_limit is None
            and task.soft_time_limit is None
        )

    def _keeps_result(self, task: Any, received: Received) -> bool:
        """As `celery.app.task.get_actual_ignore_result`: what the sender says, else what the task says."""
        ignored = received.headers.get("ignore_result")
        if not isinstance(ignored, bool):
            ignored = task.ignore_result
        return not ignored and self._has_backend

    def _run(
        self, parcel: Parcel, received: Received, task: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> asyncio.Task[None] | None:
        """Begins an attempt; None when the message is revoked."""
        request = NativeRequest(received, args, kwargs, task, self, parcel)
        request._ignore_result = not self._keeps_result(task, received)
        queue = parcel.key.removeprefix(self.intake.keys.prefix).partition(SEPARATOR)[0]
        delivery = delivery_of(
            received.id,
            task.actor.name,
            args,
            kwargs,
            received.headers,
            queue=queue,
            priority=priority_of(parcel.key),
            redelivered=received.redelivered,
        )
        if received.id in state.revoked:
            self.pool.tell(request.revoked)  # announces and acknowledges, as Celery does
            self.pool.revoker.revoke([received.id], terminate=False)
            return None
        return self.attempts.begin(parcel, request, delivery)

    def ack_soon(self, parcel: Parcel) -> None:
        """Acknowledges a message; any thread."""
        self.pool.thread.call_soon(self._ack, parcel)

    def _ack(self, parcel: Parcel) -> None:
        self.intake.holdings.ack(parcel)
        self.intake.settled()
