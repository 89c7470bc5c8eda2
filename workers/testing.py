"""For tests: run actors in this process, through the same pipeline as a worker's.

outcome = await run_now(send_email, email.id)                    # one attempt, no broker, no row

async with workbench(engine) as bench:                           # a broker in memory; rows, if there is an engine
    await send_email.enqueue(session, email.id); await session.commit()
    bench.assert_sent(send_email, email.id)
    await bench.drain()                                          # run all that is due, and what that sends
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, ParamSpec
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from workers.actor import Actor
from workers.errors import WorkersError
from workers.execution import Delivery, execute
from workers.ledger import Swept
from workers.message import Message
from workers.middleware import Middleware
from workers.policy import Outcome, RetryAt, Snoozed
from workers.runtime import Runtime

P = ParamSpec("P")


class MemoryBroker:
    """Keeps what it is given: `published` and `rung` are all there ever was, `waiting` is yet to be run."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.rung: list[Message] = []
        self.waiting: deque[Delivery] = deque()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def publish(self, messages: Sequence[Message]) -> None:
        self.published.extend(messages)
        self.waiting.extend(_delivery(message) for message in messages)

    def ring(self, messages: Sequence[Message]) -> None:
        self.rung.extend(messages)
        self.waiting.extend(_doorbell(message) for message in messages)


class Workbench:
    """A worker in the hand: it runs when told to, one message after the other, without waiting for any delay."""

    def __init__(self, runtime: Runtime, broker: MemoryBroker) -> None:
        self.runtime = runtime
        self.broker = broker
        self.outcomes: list[tuple[UUID, Outcome]] = []

    async def run(self, message: Message) -> Outcome:
        """Run one attempt of a message as if it had just arrived."""
        return await execute(self.runtime, _delivery(message))

    async def drain(self, *, limit: int = 1_000) -> list[tuple[UUID, Outcome]]:
        """Run everything that waits and whatever that sends; ids and outcomes in order.

        Messages without a row are retried at once. A row that is put off stays put off, as Postgres' clock says:
        make it due, then `sweep()`. WorkersError after `limit` attempts.
        """
        ran: list[tuple[UUID, Outcome]] = []
        while self.broker.waiting:
            if len(ran) >= limit:
                raise WorkersError(f"still not empty after {limit} attempts: does a message send itself?")
            delivery = self.broker.waiting.popleft()
            outcome = await execute(self.runtime, delivery)
            ran.append((delivery.id, outcome))
            if not delivery.durable and isinstance(outcome, RetryAt | Snoozed):
                retries = delivery.retries + isinstance(outcome, RetryAt)
                self.broker.waiting.append(msgspec.structs.replace(delivery, retries=retries))
        self.outcomes.extend(ran)
        return ran

    async def sweep(self) -> Swept:
        """Do the sweeper's duties once."""
        return await self.runtime.ledger.sweep(self.broker.ring)

    def sent(self, actor: Actor[..., Any]) -> list[Message]:
        """The messages of this actor that were published or rung for, in order."""
        return [message for message in (*self.broker.published, *self.broker.rung) if message.actor == actor.name]

    def assert_sent(self, actor: Actor[P, Any], *args: P.args, **kwargs: P.kwargs) -> Message:
        """The message this call would be was sent; which one it was. AssertionError names those that were instead."""
        wanted = actor.message(*args, **kwargs)
        calls = [message for message in self.sent(actor) if _call(message) == _call(wanted)]
        assert calls, f"{actor.name}{_call(wanted)} was not sent; sent: {[_call(each) for each in self.sent(actor)]}"  # noqa: S101
        return calls[0]


async def run_now(actor: Actor[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Outcome:
    """One attempt of this call as a worker makes it (arguments through JSON, dependencies, middleware, policy).

    There is no row and no broker; the outcome is returned, the actor's exceptions are its outcome. A runtime that is
    started on this loop is used, so that dependencies find what they need; else one is made for the call.
    """
    message = actor.message(*args, **kwargs)
    try:
        runtime = Runtime.of_loop()
    except WorkersError:
        async with workbench() as bench:
            return await bench.run(message)
    return await execute(runtime, _delivery(message))


@contextlib.asynccontextmanager
async def workbench(
    engine: AsyncEngine | None = None, *, middleware: Sequence[Middleware] | None = None, **options: Any
) -> AsyncIterator[Workbench]:
    """A runtime on this loop with a broker in memory; `options` are Runtime's. With an engine it has the ledger."""
    broker = MemoryBroker()
    runtime = Runtime(engine, broker, middleware=middleware, **options)
    await runtime.start()
    try:
        yield Workbench(runtime, broker)
    finally:
        await runtime.stop()


def _delivery(message: Message) -> Delivery:
    return Delivery(
        id=message.id,
        actor=message.actor,
        args=message.args,
        kwargs=message.kwargs,
        headers=dict(message.headers),
        queue=message.queue,
    )


def _doorbell(message: Message) -> Delivery:
    return Delivery(
        id=message.id, actor=message.actor, headers=dict(message.headers), queue=message.queue, durable=True
    )


def _call(message: Message) -> tuple[Any, ...]:
    return (*message.args, *(f"{name}={value!r}" for name, value in sorted(message.kwargs.items())))
