"""The way round: messages that need Celery's own machinery go to its strategies, as if its consumer had read them."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

import structlog
from kombu.serialization import prepare_accept_content
from kombu.transport.virtual import Message

from callboard_workers.redis.redelivery import again

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.celery.router import Desk
    from callboard_workers.redis.decode import Received
    from callboard_workers.redis.in_flight import Parcel

log = structlog.get_logger(__name__)


class StockRoute:
    """Hands messages to Celery's strategies on the main thread: canvas, results, rate limits, plain tasks."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._accept = prepare_accept_content(desk.app.conf.accept_content)
        self._receive: Callable[[Any], None] | None = None
        self._parcels: dict[str, Parcel] = {}
        """What went this way and is not settled, by task id."""

    def open(self, receive: Callable[[Any], None]) -> None:
        """Takes the function that Celery's consumer would call for each message; again after every reconnect."""
        self._receive = receive

    def pass_on(self, parcel: Parcel, received: Received) -> None:
        """Loop thread: sends a message on its way."""
        self._parcels[received.id] = parcel
        received.properties["delivery_tag"] = parcel.tag
        self.desk.pool.tell(self._deliver, parcel, received)

    def begun(self, task_id: str | None) -> None:
        """Loop thread: the pool has begun to run it, after whatever Celery made it wait for."""
        if task_id is not None and (parcel := self._parcels.get(task_id)) is not None and not parcel.marked:
            self.desk.intake.holdings.begun(parcel)
            self.desk.intake.settled()

    def forget(self, task_id: str, parcel: Parcel) -> None:
        """Loop thread: it is settled."""
        if self._parcels.get(task_id) is parcel:
            del self._parcels[task_id]

    def _deliver(self, parcel: Parcel, received: Received) -> None:
        """Main thread: what kombu's consumer does with a message."""
        channel = Channel(self.desk, parcel, received.id)
        try:
            message = Message(received.payload, channel=channel)
            message.accept = self._accept
            if self._receive is not None:
                self._receive(message)
        except Exception as error:
            log.exception("message_unreadable")
            channel.bury(f"{type(error).__name__}: {error}")


class Channel:
    """As much of a kombu channel as a message needs: how it is decoded and settled. Any thread."""

    no_ack_consumers = None

    def __init__(self, desk: Desk, parcel: Parcel, task_id: str) -> None:
        self._desk = desk
        self._parcel = parcel
        self._task_id = task_id

    def decode_body(self, body: str, encoding: str | None = None) -> bytes | str:
        return b64decode(body) if encoding == "base64" else body

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self._settle(self._desk.intake.holdings.ack, self._parcel)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        if requeue:
            marked = again(self._parcel.envelope, crashed=False).envelope
            self._settle(self._desk.intake.holdings.park, self._parcel, 0, marked)  # behind those that wait
        else:
            self.bury("rejected")

    def bury(self, reason: str) -> None:
        self._settle(self._desk.bury, self._parcel, reason)

    def _settle(self, function: Callable[..., None], *args: Any) -> None:
        self._desk.pool.thread.call_soon(self._on_loop, function, args)

    def _on_loop(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        function(*args)
        self._desk.stock.forget(self._task_id, self._parcel)
        self._desk.intake.settled()
