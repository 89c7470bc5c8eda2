"""A running message as Celery's remote control knows it: `inspect active`, `query_task`, `revoke`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celery.platforms import signals as _signals
from celery.worker.request import Request

from callboard_workers.redis.decode import moment

if TYPE_CHECKING:
    import asyncio

    from callboard_workers.celery.router import Desk
    from callboard_workers.context import Context
    from callboard_workers.execution.completion import End
    from callboard_workers.redis.decode import Received
    from callboard_workers.redis.in_flight import Parcel


class NativeRequest(Request):
    """Celery's Request without what only its tracer needs; it is cancelled, not killed."""

    def __init__(  # noqa: PLR0917 - built once per message, by one caller
        self,
        received: Received,
        args: list[Any],
        kwargs: dict[str, Any],
        task: Any,
        desk: Desk,
        parcel: Parcel,
    ) -> None:
        headers = received.headers
        self.id = received.id
        self.name = self._type = received.name
        self._task = task
        self._app = desk.app
        self._hostname = desk.hostname
        self._desk = desk
        self.parcel = parcel
        self._eventer = None
        self._connection_errors = ()
        self._request_dict = headers
        self._args = args
        self._kwargs = kwargs
        self._argsrepr = headers.get("argsrepr") or ""
        self._kwargsrepr = headers.get("kwargsrepr") or ""
        self._root_id = headers.get("root_id")
        self._parent_id = headers.get("parent_id")
        self._eta = None
        self._expires = moment(headers.get("expires"))
        self._utc = True
        self._decoded = True
        self._body: Any = (args, kwargs, {})
        self._Request__payload: Any = self._body
        self.worker_pid = os.getpid()
        self._content_type = self._content_encoding = None
        self._ignore_result = True
        info = received.properties.get("delivery_info")
        info = info if isinstance(info, dict) else {}
        self._delivery_info = {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": received.properties.get("priority"),
            "redelivered": received.redelivered,
        }
        self.attempt: asyncio.Task[None] | None = None
        self.why_cancelled: str | None = None
        self.context: Context | None = None
        self.beside: NativeRequest | None = None
        """Another one of the same message that was begun before this one: doorbells may come twice."""

    @property
    def ended(self) -> bool:
        """Whether its attempt is over."""
        return self.attempt is None or self.attempt.done()

    def _acknowledge(self, *_: Any) -> None:
        self._desk.ack_soon(self.parcel)

    # found when asked for: a request that holds its own method has to wait for the garbage collector
    _on_ack = _on_reject = property(lambda self: self._acknowledge)

    def cancel_attempt(self, why: str) -> None:
        """Cancels the coroutine; loop thread. The first reason counts."""
        if self.attempt is not None:
            self.why_cancelled = self.why_cancelled or why
            if self.context is not None:
                self.context.cancel()
            self.attempt.cancel(why)

    def left_behind(self, end: End) -> None:
        """The attempt did not let go and was ended without its task."""
        self._desk.attempts.end(self, end)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """`revoke(terminate=True)`: whatever the signal, the coroutine is cancelled."""
        number = _signals.signum(signal or "SIGTERM")
        self._desk.pool.revoker.revoke([self.id], terminate=True)
        self._announce_revoked("terminated", True, number, False)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """A cold shutdown: nothing yet; the pool, which is stopped next, cancels and gives back everything."""
