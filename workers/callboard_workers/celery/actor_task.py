"""An actor as a Celery task: same name, Celery's verbs, our execution."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, assert_never

from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry
from kombu.exceptions import OperationalError

from callboard_workers.celery.bridge import wait_for
from callboard_workers.celery.broker_url import redis_url
from callboard_workers.celery.task import Task
from callboard_workers.errors import BrokerUnavailable, Dead, TimeLimitExceeded, Uncertain, WorkersError
from callboard_workers.execution.attempt import execute
from callboard_workers.message import Priority
from callboard_workers.policy import (
    MESSAGE_LIMIT,
    Canceled,
    DeadLetter,
    Done,
    Expired,
    Ignored,
    Outcome,
    RetryAt,
    Snoozed,
    Unknown,
)
from callboard_workers.redis.delivery import delivery_of, following
from callboard_workers.runtime import Runtime

if TYPE_CHECKING:
    from callboard_workers.actors.actor import Actor
    from callboard_workers.celery.app import App


_CANVAS = ("chain", "chord", "group", "callbacks", "errbacks")
"""The parts of a request that say what is to follow it."""


class ActorTask(Task):
    """The Celery task of one actor. The library applies the actor's options (`execution.attempt`); Celery does not."""

    abstract = True
    acks_late = True
    typing = False  # the actor checks its own arguments
    throws = (Exception,)  # the attempt has logged why
    runs_on_loop = True
    actor: Actor[Any, Any]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Runs one delivery; called directly or eagerly, just the function."""
        if self.request.called_directly or self.request.is_eager:
            return wait_for(self.actor(*args, **kwargs))
        return wait_for(self.deliver(args, kwargs))

    async def deliver(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the request this task was called for and translates its outcome into Celery's terms."""
        request = self.request
        info = request.delivery_info or {}
        delivery = delivery_of(
            request.id,
            self.actor.name,
            args,
            kwargs,
            vars(request),
            queue=info.get("routing_key") or self.actor.queue,
            redelivered=bool(info.get("redelivered")),
        )
        runtime = Runtime.of_loop()
        raised: list[BaseException] = []
        outcome = await execute(runtime, delivery, raised)
        if not delivery.durable and isinstance(outcome, RetryAt | Snoozed):
            await self._send_again(runtime, following(delivery, outcome, info.get("priority") or 0))
        return conclude(outcome, raised.pop() if raised else None)

    def _signature_again(self, message: Any) -> Any:
        """The message with the rest of its canvas, which only Celery's own signature carries on."""
        headers = {name: value for name, value in message.headers.items() if name not in ("parent_id", "root_id")}
        return self.signature_from_request(
            None, message.args, message.kwargs, countdown=message.delay, headers=headers, retries=headers.pop("retries")
        )

    async def _send_again(self, runtime: Runtime, message: Any) -> None:
        try:
            # what is more than a message, and what did not come from Redis, only Celery can send
            if redis_url(self.app) is None or any(getattr(self.request, part) for part in _CANVAS):
                await asyncio.to_thread(self._signature_again(message).apply_async)
            else:
                await runtime.publisher.publish([message])
        except (BrokerUnavailable, OperationalError) as error:
            await asyncio.sleep(1)  # the broker is down: do not spin on the message we put back
            raise Reject(error, requeue=True) from error

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """As Celery's; checks the arguments, carries the context, takes priorities by name."""
        message = self.actor.message(*(args or ()), **(kwargs or {}))
        options.setdefault("task_id", message.task_id)
        options["headers"] = {**message.headers, **(options.get("headers") or {})}
        if isinstance(options.get("priority"), str):
            options["priority"] = Priority(options["priority"]).number
        return super().apply_async(message.args, message.kwargs, **options)


def bind(app: App, actor: Actor[Any, Any]) -> ActorTask:
    """Registers the actor with the app under its name and its aliases, and gives it Celery's verbs."""
    for name in (actor.name, *actor.aliases):
        task = type(actor.name.rpartition(".")[2], (ActorTask,), _attributes(actor, name))
        app.register_task(task())
    bound: ActorTask = app.tasks[actor.name]
    actor.task = bound
    return bound


def route(
    name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None, **_: Any
) -> dict[str, Any] | None:
    """Celery's router: an actor's messages go to its queue, at its priority, unless the caller says otherwise.

    Other tasks have the usual priority from here too: `task_default_priority` would overrule what a route says.
    """
    actor = getattr(task, "actor", None)
    usual = {"priority": Priority.NORMAL.number}
    return usual if actor is None else {"queue": actor.queue, "priority": actor.priority.number}


def conclude(outcome: Outcome, raised: BaseException | None = None) -> Any:
    """An outcome in the terms of Celery's tracer: a value, or the exception that stands for it."""
    if isinstance(outcome, Done):
        return outcome.result
    raise _exception(outcome, raised)


def _exception(
    outcome: RetryAt | Snoozed | DeadLetter | Expired | Unknown | Canceled | Ignored, raised: BaseException | None
) -> Exception:
    error: Exception
    match outcome:
        case RetryAt() | Snoozed():
            error = CeleryRetry(message=outcome.reason or None, exc=failure(outcome, raised), when=outcome.delay)
        case DeadLetter() | Unknown():
            error = failure(outcome, raised)
        case Expired() | Canceled() | Ignored():
            error = Ignore(outcome.reason)
        case _:
            assert_never(outcome)
    return error


def failure(outcome: RetryAt | Snoozed | DeadLetter | Unknown, raised: BaseException | None = None) -> Exception:
    """The exception that stands for an outcome where Celery shows or stores one: what the actor raised, if it did."""
    if isinstance(raised, Exception) and not isinstance(outcome, Unknown) and _own(raised):
        return raised
    said = dict.fromkeys((outcome.reason, (outcome.error or {}).get("message", "")))  # often the same
    text = ": ".join(filter(None, said))
    return Uncertain(text) if isinstance(outcome, Unknown) else Dead(text)


def _own(raised: Exception) -> bool:
    """Whether an exception says more by its class than by its outcome's reason, in a text of limited length."""
    ours = isinstance(raised, WorkersError) and not isinstance(raised, TimeLimitExceeded)
    return not ours and len(str(raised)) <= MESSAGE_LIMIT


def _attributes(actor: Actor[Any, Any], name: str) -> dict[str, Any]:
    return {
        "name": name,
        "actor": actor,
        "ignore_result": actor.policy.result is None,
        "__module__": actor.fn.__module__,
        "__doc__": actor.fn.__doc__,
    }
