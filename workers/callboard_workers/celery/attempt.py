"""Running a message natively: one asyncio task, no thread hop; events and signals only when someone listens."""

from __future__ import annotations

import asyncio
import contextvars
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog
from celery.worker import state

from callboard_workers.execution.attempt import LeftBehind, perform
from callboard_workers.message import Delivery
from callboard_workers.policy import DeadLetter, RetryAt, Snoozed, Unknown
from callboard_workers.redis.delivery import following
from callboard_workers.redis.protocol import SEPARATOR, encode
from callboard_workers.redis.redelivery import again

if TYPE_CHECKING:
    from callboard_workers.celery.request import NativeRequest
    from callboard_workers.celery.router import Desk
    from callboard_workers.execution.completion import End
    from callboard_workers.policy import Outcome
    from callboard_workers.redis.in_flight import Parcel

log = structlog.get_logger(__name__)

TROUBLE = 5.0
"""Seconds a direct message waits after an attempt that failed for a reason of ours."""


class Attempts:
    """What runs natively, by tag."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.running: dict[int, tuple[NativeRequest, Delivery]] = {}

    def begin(self, parcel: Parcel, request: NativeRequest, delivery: Delivery) -> asyncio.Task[None]:
        """Starts an attempt."""
        context = contextvars.Context()  # of its own, and empty: what runs here shares nothing
        task = asyncio.get_running_loop().create_task(self._run(parcel, request, delivery), context=context)
        request.attempt = task
        self.running[parcel.tag] = (request, delivery)
        return task

    def cancel_all(self, why: str, *, durable: bool = True) -> None:
        """Cancels every attempt, or every one without a row; loop thread."""
        for request, delivery in tuple(self.running.values()):
            if durable or not delivery.durable:
                request.cancel_attempt(why)

    def give_back(self, *, all: bool = False) -> None:
        """Cancels what has passed no fence: `all` of it, or what has not begun or is declared so; loop thread."""
        for request, _ in tuple(self.running.values()):
            context = request.context
            begun = context is not None and (context.fenced or not (all or context.actor.policy.on_stop == "release"))
            if not begun and request.why_cancelled is None:
                request.cancel_attempt("shutdown")

    def stop(self, task_id: str) -> None:
        """Cancels what runs of one message, for good; loop thread. A durable one's row says so already."""
        for request, _ in tuple(self.running.values()):
            if request.id == task_id:
                request.cancel_attempt("revoked")

    async def _run(self, parcel: Parcel, request: NativeRequest, delivery: Delivery) -> None:
        request.time_start = time.time()
        self._note_active(request)
        if not delivery.durable and not parcel.marked:
            self.desk.intake.holdings.begun(parcel)
            self.desk.intake.settled()
        self.desk.announcer.started(request)
        if request.task.track_started and not request.ignore_result and self.desk.results is not None:
            self.desk.results.started(request)
        end: End
        try:
            end = await perform(self.desk.pool.runtime, delivery, request)  # type: ignore[arg-type]
        except LeftBehind:
            return
        except (Exception, asyncio.CancelledError) as error:
            end = error
        try:
            self.end(request, end)
        finally:
            del end  # an exception's traceback holds this frame

    def end(self, request: NativeRequest, end: End) -> None:
        """An attempt has come to its end: by its own task, or without it."""
        parcel = request.parcel
        found = self.running.pop(parcel.tag, None)
        if found is None:
            return
        delivery = found[1]
        try:
            if isinstance(end, asyncio.CancelledError):
                self._settle_cancelled(parcel, request, delivery)
            elif isinstance(end, BaseException):
                log.error("attempt_broke", task_id=request.id, task_name=request.name, exc_info=end)
                self._settle_broken(parcel, delivery, end)
            else:
                self._settle_outcome(parcel, request, delivery, end)
        finally:
            self._note_ended(request)
            self.desk.intake.settled()
            if request.context is not None:
                request.context.release_error()

    def _settle_outcome(self, parcel: Parcel, request: NativeRequest, delivery: Delivery, outcome: Outcome) -> None:
        if request.ignore_result or self.desk.results is None:
            self._settle(parcel, delivery, outcome)
        else:
            self.desk.results.settle(request, outcome, partial(self._settle_stored, parcel, delivery, outcome))
        self.desk.announcer.ended(request, outcome, time.time() - request.time_start)

    def _note_active(self, request: NativeRequest) -> None:
        """As `celery.worker.state.task_accepted`; reserved as well only where the autoscaler counts them."""
        request.beside = state.requests.get(request.id)
        state.requests[request.id] = request
        state.active_requests.add(request)
        state.total_count[request.name] += 1
        state.all_total_count[0] += 1
        if self.desk.consumer.controller.autoscaler is not None:
            state.reserved_requests.add(request)
            for callback in self.desk.consumer.on_task_message:
                self.desk.pool.tell(callback, request)

    @staticmethod
    def _note_ended(request: NativeRequest) -> None:
        """As `celery.worker.state.task_ready`; a second doorbell that ends does not hide the attempt it found."""
        state.active_requests.discard(request)
        state.reserved_requests.discard(request)
        if state.requests.get(request.id) is not request:
            return
        other = request.beside
        while other is not None and other.ended:
            other = other.beside
        if other is None:
            del state.requests[request.id]
        else:
            state.requests[request.id] = other

    def _settle(self, parcel: Parcel, delivery: Delivery, outcome: Outcome) -> None:
        """A durable message's row has the outcome already; a direct one has nothing but this."""
        holdings = self.desk.intake.holdings
        if delivery.durable:
            holdings.ack(parcel)
        elif isinstance(outcome, RetryAt | Snoozed):
            holdings.park(parcel, outcome.delay, self._again(delivery, outcome, parcel))
        elif isinstance(outcome, DeadLetter | Unknown):
            self.desk.bury(parcel, f"{outcome.reason}: {(outcome.error or {}).get('message', '')}")
        else:
            holdings.ack(parcel)

    def _again(self, delivery: Delivery, outcome: RetryAt | Snoozed, parcel: Parcel) -> bytes:
        message = following(delivery, outcome, priority_of(parcel.key))
        return encode(message, signer=self.desk.app.worker_options.signer)

    def _settle_stored(self, parcel: Parcel, delivery: Delivery, outcome: Outcome) -> None:
        """The result is stored: only now is the message done with."""
        self._settle(parcel, delivery, outcome)
        self.desk.intake.settled()

    def _settle_cancelled(self, parcel: Parcel, request: NativeRequest, delivery: Delivery) -> None:
        holdings = self.desk.intake.holdings
        match request.why_cancelled:
            case "revoked":
                holdings.ack(parcel)
            case "lease lost":
                pass  # it runs elsewhere
            case "shutdown":
                holdings.put_back(parcel)
            case _:
                log.error("attempt_cancelled_itself", task_id=request.id, task_name=request.name)
                self._settle_broken(parcel, delivery, asyncio.CancelledError())

    def _settle_broken(self, parcel: Parcel, delivery: Delivery, error: BaseException) -> None:
        """Not the actor's fault: a durable message is rung again by the sweeper, a direct one waits a little."""
        holdings = self.desk.intake.holdings
        crashes = int(delivery.headers.get("crashes") or 0) + 1
        if delivery.durable:
            holdings.ack(parcel)
        elif crashes >= self.desk.max_crashes(delivery.actor):
            self.desk.bury(parcel, f"broke {crashes} times: {type(error).__name__}: {error}")
        else:
            holdings.park(parcel, TROUBLE, again(parcel.envelope, crashed=True).envelope)


def priority_of(key: str) -> int:
    """The priority of a list, by its name."""
    return int(key.rpartition(SEPARATOR)[2]) if SEPARATOR in key else 0
