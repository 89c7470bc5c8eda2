"""What one process needs to send messages and to run them, bound to one event loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

import msgspec
import structlog

from callboard_workers.common.threads import Threads
from callboard_workers.context import Context
from callboard_workers.crash_isolation import CrashIsolation
from callboard_workers.errors import NoRuntime
from callboard_workers.ledger import Claim, Ledger
from callboard_workers.ledger.sweeper import Depth
from callboard_workers.maintenance import Held, Keeper
from callboard_workers.message import Message
from callboard_workers.metrics import STUCK
from callboard_workers.middleware import Execute, Middleware, defaults, onion, sending
from callboard_workers.policy import Outcome

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

log = structlog.stdlib.get_logger("callboard_workers.runtime")

T = TypeVar("T")

THREADS = 32
"""`def` actors that run at once."""

FOLLOWERS_PAUSE_SECONDS = 0.02
"""Between two look-ups of followers, so that the members of a large group share few."""

RETENTION = 30 * 86_400.0
"""Seconds for which a message is kept after its end."""


class Broker(Protocol):
    """What carries messages; callboard_workers.redis.publisher.Publisher, or the one in memory that tests use."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Hand over messages with their arguments; BrokerUnavailable within a deadline."""

    def ring(self, messages: Sequence[Message]) -> None:
        """Hand over doorbells for rows; never blocks, never raises."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()


class Runtime:
    """One per loop: the ledger, the broker, the middleware, and, in a worker, what is running."""

    def __init__(
        self,
        engine: AsyncEngine | None,
        publisher: Broker,
        *,
        middleware: Sequence[Middleware] | None = None,
        worker_id: str | None = None,
        lease: float = 30.0,
        sweep_every: float = 1.0,
        threads: int = THREADS,
        depth: Depth | None = None,
        retention: float = RETENTION,
    ) -> None:
        self.engine = engine
        self.publisher = publisher
        self.middleware: tuple[Middleware, ...] = tuple(defaults() if middleware is None else middleware)
        self._listening = [layer for layer in self.middleware if type(layer).outcome is not Middleware.outcome]
        self.worker_id = worker_id or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.lease = lease
        self.working = False
        self.stopping = False
        """Whether no attempt may pass its fence any more."""
        self.state: dict[str, Any] = {}
        """What an application keeps per process, such as its settings."""
        self.resources = AsyncExitStack()
        """What is to be closed when the runtime stops, last opened first."""
        self.threads = Threads(threads, "actor")
        self.stuck: dict[asyncio.Future[Any], Context] = {}
        """Attempts that were written off and have not let go yet."""
        self._ledger = None if engine is None else Ledger(engine)
        self.isolation = CrashIsolation(self._note_isolation, patience=lease)
        self._keeper = Keeper(self, sweep_every=sweep_every, depth=depth, retention=retention)
        self._onion: tuple[Any, Execute] | None = None
        self._send = sending(self.middleware, self._publish)
        self._ending: set[asyncio.Task[Any]] = set()
        self._admitting: dict[str, bool] = {}
        """The gates that are looked at, and whether somebody asked since the look began."""
        self._parents: set[UUID] = set()
        """Settled messages whose followers are to be looked up."""
        self._looking = False

    @staticmethod
    def of_loop() -> Runtime:
        """The runtime of the running loop; NoRuntime if none was started on it."""
        found = _runtimes.get(asyncio.get_running_loop())
        if found is None:
            raise NoRuntime("this event loop has no Runtime: `await Runtime(engine, publisher).start()` on it first")
        return found

    @property
    def ledger(self) -> Ledger:
        """Durable messages; NoRuntime if this runtime was made without a database."""
        if self._ledger is None:
            raise NoRuntime("this Runtime was made without an engine: it has no durable messages")
        return self._ledger

    def require_engine(self) -> AsyncEngine:
        """Return the database engine. Raises NoRuntime if this runtime was made without one."""
        if self.engine is None:
            raise NoRuntime("this Runtime was made without an engine: it has no database")
        return self.engine

    def resource(self, key: str, make: Callable[[], T], close: Callable[[T], Awaitable[Any]] | None = None) -> T:
        """Return the object that an application keeps per process under `key`; `make` it when first asked for.

        `close` is awaited with it when the runtime stops, last made first.
        """
        if key not in self.state:
            made = self.state[key] = make()
            if close is not None:
                self.resources.push_async_callback(close, made)
        found: T = self.state[key]
        return found

    @property
    def active(self) -> dict[UUID, Context]:
        """The durable attempts that run now."""
        return self._keeper.running()

    @property
    def fenced(self) -> int:
        """Durable attempts past their fence whose outcome is not stored yet; from any thread."""
        return self._keeper.fenced

    async def start(self, *, worker: bool = False) -> None:
        """Bind to the running loop; a worker also renews its leases and takes its turn at sweeping."""
        _runtimes[asyncio.get_running_loop()] = self
        self.working = worker
        await self.publisher.start()
        for layer in self.middleware:
            layer.startup(self)
        if worker and self._ledger is not None:
            self._keeper.start()

    async def stop(self, *, timeout: float = 10.0) -> None:
        """Finish what is being written, within `timeout` seconds, and let go of the loop. Stop the attempts first."""
        try:
            async with asyncio.timeout(timeout):
                await self._keeper.stop()
                await self.isolation.stop()
                if self._ending:
                    await asyncio.wait(self._ending)
                if self._ledger is not None:
                    await self._ledger.close()
                await self.resources.aclose()
        except TimeoutError:
            log.warning("runtime_stop_incomplete", seconds=timeout)
        finally:
            await self.publisher.stop()
            for layer in reversed(self.middleware):
                layer.shutdown(self)
            self.threads.close()
            loop = asyncio.get_running_loop()
            if _runtimes.get(loop) is self:
                del _runtimes[loop]

    def onion(self, core: Callable[[Runtime, Context], Awaitable[Outcome]]) -> Execute:
        """The middleware around `core`, composed once."""
        if self._onion is None or self._onion[0] is not core:
            self._onion = core, onion(self.middleware, partial(core, self))
        return self._onion[1]

    def ring(self, messages: Sequence[Message]) -> None:
        """Ring for rows that were committed and are due; what has a gate is rung for once it is let in.

        Never blocks or raises.
        """
        messages = [message for message in messages if message.delay is None and message.due_at is None]
        gates = {message.gate.name for message in messages if message.gate is not None}
        if gates:
            self.admit_soon(gates)
            messages = [message for message in messages if message.gate is None]
        if messages:
            self.publisher.ring(messages)

    def admit_soon(self, gates: Iterable[str]) -> None:
        """Let in what these gates have room for, in the background; if that fails, the sweeper does it.

        One look at a gate goes on at a time, and one more waits: a thousand ends are not a thousand looks.
        """
        wanted = [gate for gate in gates if gate not in self._admitting]
        self._admitting.update(dict.fromkeys(gates, True))
        if wanted:
            task = asyncio.get_running_loop().create_task(self._admit(wanted))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def ring_followers(self, parent: UUID) -> None:
        """Ring for what the settling of a message has put, in the background; if that fails, the sweeper does it.

        For followers whose ids only the ledger knows. Many parents share a look-up.
        """
        self._parents.add(parent)
        if not self._looking:
            self._looking = True
            self.begin(self._ring_followers(), name="followers")

    async def _ring_followers(self) -> None:
        try:
            while self._parents:
                parents, self._parents = self._parents, set()
                self.ring(await self.ledger.followers(parents))
                if self._parents:
                    await asyncio.sleep(FOLLOWERS_PAUSE_SECONDS)
        except Exception as error:
            self._parents.clear()
            log.warning("followers_lookup_failed", error=repr(error), hint="the sweeper rings for them")
        finally:
            self._looking = False

    async def _admit(self, gates: Sequence[str]) -> None:
        left = list(reversed(gates))
        try:
            while left:
                while self._admitting[left[-1]]:
                    self._admitting[left[-1]] = False
                    if admitted := await self.ledger.admit([left[-1]]):
                        self.publisher.ring(admitted)
                del self._admitting[left.pop()]
        except Exception as error:
            log.warning("admission_failed", error=repr(error), gates=len(gates))
        finally:
            for gate in left:
                del self._admitting[gate]

    async def send(self, message: Message) -> Message:
        """Send one message through the broker alone."""
        return await self._send(message)

    async def _publish(self, message: Message) -> Message:
        await self.publisher.publish([message])
        return message

    async def enqueue(self, where: AsyncSession | AsyncConnection, *messages: Message) -> list[Message]:
        """Write messages in the caller's transaction; those due now are rung for after its commit.

        A message whose key an unfinished one bears is answered by that one's id.
        """
        outgoing: list[Message] = []
        for message in messages:
            await sending(self.middleware, _collect(outgoing))(message)
        return await _enqueue(where, outgoing, self)

    @staticmethod
    async def enqueue_from_loop(where: AsyncSession | AsyncConnection, *messages: Message) -> list[Message]:
        """As `enqueue`, by this loop's runtime; without one the row is written all the same, and the sweeper rings."""
        runtime = _runtimes.get(asyncio.get_running_loop())
        return await _enqueue(where, messages, None) if runtime is None else await runtime.enqueue(where, *messages)

    @contextmanager
    def holding(self, claim: Claim, context: Context) -> Iterator[Held]:
        """Inside, the claim's lease is renewed; the current task is cancelled if it is lost or to be canceled."""
        held = self._keeper.hold(claim, context)
        try:
            yield held
        finally:
            self._keeper.let_go(claim)

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that must be finished though the awaiting task is cancelled; `stop` waits for it."""
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return await asyncio.shield(task)

    async def idle(self) -> None:
        """Wait until nothing is done in the background: admissions, settlements that outlive their attempts."""
        while self._ending:
            await asyncio.wait(set(self._ending))

    async def _note_isolation(self, claims: Sequence[Claim], together: int | None) -> None:
        await self.ledger.begin(claims, together)

    def begin(self, work: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Let something run on its own; `stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def let_go(self, claim: Claim) -> None:
        """The claim's lease is renewed no more."""
        self._keeper.let_go(claim)

    def concluded(self, context: Context, outcome: Outcome) -> None:
        """Tell the middleware how an attempt ended."""
        for layer in self._listening:
            try:
                layer.outcome(context, outcome)
            except Exception:
                log.exception("middleware_failed", middleware=type(layer).__name__, hook="outcome")

    def lost(self, message: Message) -> None:
        """Tell the middleware of a message whose worker died."""
        for layer in self.middleware:
            try:
                layer.lost(message)
            except Exception:
                log.exception("middleware_failed", middleware=type(layer).__name__, hook="lost")

    def write_off(self, context: Context, task: asyncio.Future[Any]) -> None:
        """An attempt does not let go: its slot is free, but the process is marked until it ends."""
        self.stuck[task] = context
        STUCK.inc()
        log.error("task_stuck", task_id=str(context.id), task_name=context.actor.name)
        task.add_done_callback(self._unstuck)

    def _unstuck(self, task: asyncio.Future[Any]) -> None:
        context = self.stuck.pop(task, None)
        STUCK.dec()
        if not task.cancelled():
            task.exception()  # looked at, so that nothing complains about it
        if context is not None:
            log.warning("task_unstuck", task_id=str(context.id), task_name=context.actor.name)


def _collect(outgoing: list[Message]) -> Any:
    async def keep(message: Message) -> Message:
        outgoing.append(message)
        return message

    return keep


async def _enqueue(
    where: AsyncSession | AsyncConnection, messages: Sequence[Message], runtime: Runtime | None
) -> list[Message]:
    from callboard_workers.ledger.inserts import after_commit, insert, place, standing  # noqa: PLC0415 - loads SQLAlchemy

    new = await insert(where, [message for message in messages if message.once is None])
    stand: dict[UUID, UUID] = {}
    for message in messages:
        if message.once is not None:
            stand[message.id] = await place(where, message)
        elif message.id not in new:
            stand[message.id] = await standing(where, message) or message.id
    if runtime is not None:
        after_commit(where, runtime.ring, [each for each in messages if each.id in new or stand[each.id] == each.id])
    return [
        message if stand.get(message.id, message.id) == message.id else _as(message, stand[message.id])
        for message in messages
    ]


def _as(message: Message, id: UUID) -> Message:
    return msgspec.structs.replace(message, id=id)
