"""The result backend from the loop: what attempts came to is stored in batches, one script for each.

Keys, channels and values are those of `celery.backends.redis.RedisBackend`, so `AsyncResult.get()` of any stock client
finds them; unlike there, looking whether a SUCCESS is stored already and storing is one step.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskError, TaskRevokedError
from kombu.exceptions import EncodeError
from redis.exceptions import NoScriptError, ResponseError

from callboard_workers.celery.actor_task import failure
from callboard_workers.celery.broker_url import normal
from callboard_workers.errors import BrokerUnavailable
from callboard_workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, RetryAt, Snoozed, Unknown
from callboard_workers.redis.connection import Link
from callboard_workers.redis.protocol import tagged
from callboard_workers.redis.scripts import STORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.celery.request import NativeRequest
    from callboard_workers.policy import Outcome

log = structlog.get_logger(__name__)

BATCH = 200
"""Results stored in one round trip."""
BATCH_BYTES = 1_000_000
REPLY = 5.0
"""Seconds a round trip may take."""
PASSING = 10_000
"""States on the way (STARTED, RETRY) that may wait for the backend; more are left out."""

_encode = msgspec.json.Encoder().encode


@dataclass(eq=False, slots=True)
class Entry:
    """One state to be stored, and what is to happen then."""

    key: bytes
    value: bytes
    expires: int
    """Seconds; 0: for ever."""
    stored: Callable[[], None] | None


class Results:
    """Stores states in the order they are given. Loop thread.

    While the backend does not answer, its results wait, and with them the acknowledgement of their messages: they
    count as in hand, so a worker whose backend is down stops fetching instead of losing results.
    """

    def __init__(self, app: Any, backend: Any, url: str) -> None:
        self._backend = backend
        self._extended = bool(app.conf.result_extended)
        self._link = Link(url)
        self._entries: list[Entry] = []
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, app: Any) -> Results | None:
        """For the app's backend, if that is Redis and keeps plain JSON; None leaves results to Celery's tracer."""
        backend = app.backend
        url = normal(getattr(backend, "url", None))
        plain = type(backend) is RedisBackend and backend.serializer == "json" and not backend.compression
        special = app.conf.get("redis_backend_use_ssl") or app.conf.get("redis_backend_credential_provider")
        return cls(app, backend, url) if plain and url is not None and not special else None

    def started(self, request: NativeRequest) -> None:
        """An attempt begins, of a task that has `track_started`."""
        meta = {"pid": request.worker_pid, "hostname": request.hostname}
        self._pass(request, states.STARTED, meta)

    def settle(self, request: NativeRequest, outcome: Outcome, settled: Callable[[], None]) -> None:
        """An attempt has come to `outcome`; `settled` is called when whoever asks for it will be told so."""
        raised = request.context.error if request.context is not None else None
        match outcome:
            case Done():
                self._final(request, states.SUCCESS, outcome.result, settled)
            case DeadLetter() | Unknown():
                self._final(request, states.FAILURE, failure(outcome, raised), settled)
            case Expired() | Canceled():
                self._final(request, states.REVOKED, TaskRevokedError(outcome.reason or "revoked"), settled)
            case RetryAt() | Snoozed():
                self._pass(request, states.RETRY, failure(outcome, raised))
                settled()
            case Ignored():
                settled()

    def fail(self, task_id: str, reason: str) -> None:
        """Store that a message failed before any attempt: no task has its name, or nobody can read it."""
        meta = {
            "status": states.FAILURE,
            "result": self._backend.prepare_exception(TaskError(reason)),
            "traceback": None,
            "children": [],
            "date_done": dt.datetime.now(dt.UTC).isoformat(),
            "task_id": task_id,
        }
        key = self._backend.get_key_for_task(task_id)
        self._put(Entry(key, _encode(tagged(meta)), int(self._backend.failure_expires or 0), None))

    async def close(self, timeout: float) -> None:
        """Stores what waits, within `timeout` seconds, and closes the connection."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout)
            self._task.cancel()
        await self._link.close()

    def _pass(self, request: NativeRequest, state: str, result: Any) -> None:
        if len(self._entries) < PASSING:
            self._put(Entry(self._key(request), self._value(request, state, result), self._expires(request), None))

    def _final(self, request: NativeRequest, state: str, result: Any, settled: Callable[[], None]) -> None:
        expires = self._backend.failure_expires if state == states.FAILURE else self._expires(request)
        self._put(Entry(self._key(request), self._value(request, state, result), expires or 0, settled))

    def _key(self, request: NativeRequest) -> bytes:
        return self._backend.get_key_for_task(request.id)  # type: ignore[no-any-return]

    def _expires(self, request: NativeRequest) -> int:
        """What the actor says, else the setting `result_expires`."""
        keep = request.task.actor.policy.result
        return int(self._backend.expires or 0) if keep is None else max(1, int(keep))

    def _value(self, request: NativeRequest, state: str, result: Any) -> bytes:
        """As `celery.backends.base.Backend._get_result_meta` and `encode` write it."""
        if isinstance(result, BaseException):
            result = self._backend.prepare_exception(result)
        ready = state in states.READY_STATES
        meta = {
            "status": state,
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": dt.datetime.now(dt.UTC).isoformat() if ready else None,
        }
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        if self._extended:
            meta |= _extended(request)
        meta["task_id"] = request.id
        try:
            return _encode(tagged(meta))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self._as_celery(request, meta)

    def _as_celery(self, request: NativeRequest, meta: dict[str, Any]) -> bytes:
        """What only Celery's serializer knows how to write; what it does not know either has failed."""
        try:
            text: str = self._backend.encode(meta)
        except Exception as error:
            log.exception("result_not_json", task_id=request.id, task_name=request.name)
            lost = EncodeError(f"the result cannot be stored: {error}")
            text = self._backend.encode(
                {**meta, "status": states.FAILURE, "result": self._backend.prepare_exception(lost)}
            )
        return text.encode()

    def _put(self, entry: Entry) -> None:
        self._entries.append(entry)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._store(), name="results")

    async def _store(self) -> None:
        """One batch after the other, each until the backend has answered; the next gathers meanwhile."""
        pause = 0.1
        try:
            while self._entries:
                batch = self._batch()
                try:
                    await self._round_trip(batch)
                except BrokerUnavailable as error:
                    log.warning("results_delayed", error=str(error), waiting=len(self._entries))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 2.0)
                    continue
                pause = 0.1
                del self._entries[: len(batch)]
                for entry in batch:
                    if entry.stored is not None:
                        entry.stored()
        finally:
            self._task = None

    def _batch(self) -> list[Entry]:
        size = 0
        for count, entry in enumerate(self._entries[:BATCH], 1):
            size += len(entry.value)
            if size > BATCH_BYTES:
                return self._entries[:count]
        return self._entries[:BATCH]

    async def _round_trip(self, batch: list[Entry]) -> None:
        keys = [entry.key for entry in batch]
        arguments = [part for entry in batch for part in (entry.value, entry.expires)]
        [reply] = await self._link.call([STORE.call(keys, arguments)], REPLY)
        if isinstance(reply, NoScriptError):
            [reply] = await self._link.call([("EVAL", STORE.text, len(keys), *keys, *arguments)], REPLY)
        if isinstance(reply, ResponseError):
            raise BrokerUnavailable(f"the result backend refused: {reply}")


def _extended(request: NativeRequest) -> dict[str, Any]:
    return {
        "name": request.name,
        "args": request.args,
        "kwargs": request.kwargs,
        "worker": request.hostname,
        "retries": request.request_dict.get("retries") or 0,
        "queue": (request.delivery_info or {}).get("routing_key"),
    }
