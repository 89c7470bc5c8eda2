"""Celery's consumer with our own intake in the place of its task consumer. Redis only.

Everything else of the worker is Celery's: remote control, events, timers, signals, shutdown. Swapping the `Tasks` step
needs `Control` swapped too: a bootstep finds the one it requires by identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer import consumer as stock
from celery.worker.consumer.control import Control as StockControl
from celery.worker.consumer.mingle import Mingle
from kombu.common import QoS

from callboard_workers.celery.task_consumer import Front

if TYPE_CHECKING:
    from collections.abc import Iterable

log = structlog.get_logger(__name__)


class Tasks(bootsteps.StartStopStep):
    """Opens our intake with the first connection and leaves it alone when the main connection comes and goes."""

    requires = (Mingle,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        c.task_consumer = c.qos = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Again after every reconnect."""
        c.update_strategies()
        c.qos = QoS(lambda **_: None, 0)  # what may be in hand is counted by the intake
        if c.pool.front is None:
            c.pool.front = Front(c)
        c.task_consumer = c.pool.front
        c.pool.front.open(c)

    def stop(self, c: Any) -> None:
        """Stops fetching when the worker closes; a reconnect passes through here too and stops nothing."""
        if c.blueprint.state != bootsteps.RUN and c.task_consumer is not None:
            c.task_consumer.cancel()

    def shutdown(self, c: Any) -> None:
        """The pool has settled everything already."""
        c.task_consumer = None

    def info(self, c: Any) -> dict[str, Any]:
        """For `inspect stats`."""
        return {"prefetch_count": c.pool.limit, **(c.task_consumer.info() if c.task_consumer else {})}


class Control(StockControl):
    """Remote control over our step; iterates copies, because the loop thread changes the sets meanwhile."""

    requires = (Tasks,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.box.node.state.tset = snapshot
        if (verbs := c.app.worker_options.control_verbs) is not None:
            self.box.node.handlers = Allowed(self.box.node.handlers, verbs)


class Allowed(dict[str, Any]):
    """The commands of remote control that a worker obeys; who asks for another is told so."""

    def __init__(self, handlers: dict[str, Any], verbs: frozenset[str]) -> None:
        super().__init__({name: handler for name, handler in handlers.items() if name in verbs})

    def __missing__(self, name: str) -> Any:
        log.warning("control_refused", verb=name[:100])
        raise PermissionError(f"this worker does not obey {name!r} (WORKER_CONTROL_VERBS)")


class Consumer(stock.Consumer):
    """The consumer of a worker on Redis."""

    connection: Any

    class Blueprint(stock.Consumer.Blueprint):
        """Celery's steps, two of them replaced."""

        default_steps = (
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.mingle:Mingle",
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.gossip:Gossip",
            "celery.worker.consumer.heart:Heart",
            "callboard_workers.celery.consumer:Control",
            "callboard_workers.celery.consumer:Tasks",
            "celery.worker.consumer.consumer:Evloop",
            "celery.worker.consumer.agent:Agent",
        )

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Gives up the main connection; what runs has connections of its own and goes on."""
        log.warning("control_connection_lost", error=repr(exc))
        stock.bound_open_broker_sockets(self.connection, stock.COLLECT_SOCKET_TIMEOUT)
        connection, self.connection = self.connection, None
        for give_up in (lambda: connection.collect(socket_timeout=stock.COLLECT_SOCKET_TIMEOUT), connection.close):
            try:
                give_up()
            except Exception as error:
                log.debug("control_connection_not_closed", error=repr(error))

    def on_close(self) -> None:
        """Nothing is forgotten: no message in hand depends on this connection."""

    def add_task_queue(self, queue: str, *args: Any, **options: Any) -> None:
        """`celery control add_consumer`."""
        super().add_task_queue(queue, *args, **options)

    def cancel_active_requests(self) -> None:
        """A cold shutdown: what runs is cancelled and given back."""
        for request in snapshot(state.active_requests):
            request.cancel(self.pool, emit_retry=False)


def snapshot(items: Iterable[Any]) -> set[Any]:
    """A copy of a set that another thread may be changing."""
    while True:
        try:
            return set(items)
        except RuntimeError:  # it changed while it was copied
            continue
