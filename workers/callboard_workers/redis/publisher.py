"""The async publisher: concurrent senders share one pipelined round trip, bounded in time and in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from callboard_workers.common.breaker import Breaker, Circuit
from callboard_workers.common.shared_timeout import Patience
from callboard_workers.errors import BrokerUnavailable
from callboard_workers.redis.connection import Command, Link
from callboard_workers.redis.protocol import bindings, encode, list_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from callboard_workers.message import Message
    from callboard_workers.redis.signing import Signer

log = structlog.get_logger(__name__)

MAX_BATCH_BYTES = 1_000_000
"""A batch stops growing here, so that its deadline stays honest on a slow line."""


@dataclass(eq=False, slots=True)
class _Parcel:
    """What one caller wants pushed, and where the caller waits; a doorbell has nobody waiting."""

    entries: list[tuple[str, str, bytes]]  # queue, list key, envelope
    arrived: asyncio.Future[None] | None = None

    @property
    def abandoned(self) -> bool:
        return self.arrived is not None and self.arrived.done()

    def settle(self, error: BaseException | None) -> None:
        if self.arrived is None or self.arrived.done():
            return
        if error is None:
            self.arrived.set_result(None)
        else:
            self.arrived.set_exception(error)


class Publisher:
    """Pushes messages to Redis as Celery would, from one event loop.

    `deadline` (seconds) bounds every publish: connecting, waiting for the batch before it, the round trip. While
    the circuit is open a publish fails at once and doorbells wait in a buffer of at most `max_buffer` messages
    (the oldest are dropped: the sweeper rings again for every row that stays due).
    """

    def __init__(
        self,
        redis_url: str,
        *,
        deadline: float = 2.0,
        key_prefix: str = "",
        max_buffer: int = 10_000,
        signer: Signer | None = None,
    ) -> None:
        self.deadline = deadline
        self.key_prefix = key_prefix
        self.max_buffer = max_buffer
        self.signer = signer
        self.dropped = 0
        """Doorbells given up since the start because the buffer was full."""
        self._link = Link(redis_url, connect_timeout=deadline)
        self._breaker = Breaker()
        self._patience = Patience(deadline)
        self._parcels: deque[_Parcel] = deque()
        self._doorbells: deque[_Parcel] = deque()
        self._work = asyncio.Event()
        self._bound: set[str] = set()
        self._flusher: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Binds the publisher to the running loop; connects with the first message."""
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_forever(), name="publisher")

    async def stop(self) -> None:
        """Pushes what is buffered, within one deadline, and closes the connection."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            if self._breaker.state is Circuit.closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.deadline):
                        await self._idle.wait()
            flusher.cancel()
            await asyncio.gather(flusher, return_exceptions=True)
        self._refuse(self._parcels, BrokerUnavailable("the publisher was stopped"))
        await self._link.close()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Pushes messages with their content and returns when Redis has them.

        Raises BrokerUnavailable within the deadline, at once while the circuit is open. After a timeout it is
        unknown whether Redis got them: sending again may run them twice.
        """
        if not messages:
            return
        entries = self._entries(messages, durable=False)
        if self._flusher is None:
            raise BrokerUnavailable("the publisher is not started: await publisher.start() on this loop first")
        if not self._breaker.allows(asyncio.get_running_loop().time()):
            raise BrokerUnavailable("the broker is down; trying again shortly")
        if len(self._parcels) >= self.max_buffer:
            raise BrokerUnavailable(f"{self.max_buffer} publishes are already waiting for the broker")
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parcels.append(_Parcel(entries, arrived))
        self._wake()
        try:
            await self._patience.bear(arrived)
        except TimeoutError as error:
            raise BrokerUnavailable(f"the broker did not answer within {self.deadline} s") from error

    def ring(self, messages: Iterable[Message]) -> None:
        """Rings for rows that are committed: their ids only, in the background; never raises, never waits."""
        try:
            entries = self._entries(messages, durable=True)
        except Exception:
            log.exception("doorbell_invalid")
            return
        if not entries:
            return
        self._doorbells.append(_Parcel(entries))
        while len(self._doorbells) > self.max_buffer:
            self.dropped += len(self._doorbells.popleft().entries)
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()

    def _entries(self, messages: Iterable[Message], *, durable: bool) -> list[tuple[str, str, bytes]]:
        prefix, signer = self.key_prefix, self.signer
        return [
            (m.queue, list_key(m.queue, m.priority.number, prefix), encode(m, durable=durable, signer=signer))
            for m in messages
        ]

    async def _flush_forever(self) -> None:
        while True:
            await self._work.wait()
            await self._wait_for_circuit()
            batch = self._take_batch()
            if batch:
                await self._push(batch)
            else:
                self._breaker.forgo()
            if not self._parcels and not self._doorbells:
                self._work.clear()
                self._idle.set()

    async def _wait_for_circuit(self) -> None:
        """Doorbells outlive an outage: they wait for the pause to end; whoever publishes first is the probe too."""
        loop = asyncio.get_running_loop()
        while self._breaker.state is Circuit.open and not self._parcels:
            await asyncio.sleep(max(0.0, min(0.1, self._breaker.retry_at - loop.time())))
            if self._breaker.allows(loop.time()):
                return

    def _take_batch(self) -> list[_Parcel]:
        batch: list[_Parcel] = []
        size = 0
        for source in (self._parcels, self._doorbells):
            while source and size < MAX_BATCH_BYTES:
                parcel = source.popleft()
                if not parcel.abandoned:
                    batch.append(parcel)
                    size += sum(len(entry[2]) for entry in parcel.entries)
        return batch

    async def _push(self, batch: list[_Parcel]) -> None:
        commands, keys = self._commands(batch)
        try:
            replies = await self._link.call(commands, self.deadline)
        except BrokerUnavailable as error:
            self._lose(batch, error)
            return
        if self._breaker.state is not Circuit.closed:
            log.info("broker_back")
        self._breaker.succeed()
        refused = {key: reply for key, reply in zip(keys, replies, strict=False) if isinstance(reply, Exception)}
        if refused:
            log.warning("broker_refused", error=str(next(iter(refused.values()))))
        else:
            self._bound.update(entry[0] for parcel in batch for entry in parcel.entries)
        for parcel in batch:
            reason = next((refused[key] for _, key, _ in parcel.entries if key in refused), None)
            parcel.settle(BrokerUnavailable(f"the broker refused the message: {reason}") if reason else None)

    def _commands(self, batch: list[_Parcel]) -> tuple[list[Command], list[str]]:
        """One LPUSH for each list, whatever the number of messages, then the bindings of queues not yet seen."""
        pushes: dict[str, list[bytes]] = {}
        queues: set[str] = set()
        for parcel in batch:
            for queue, key, envelope in parcel.entries:
                pushes.setdefault(key, []).append(envelope)
                queues.add(queue)
        commands: list[Command] = [("LPUSH", key, *envelopes) for key, envelopes in pushes.items()]
        for queue in queues - self._bound:
            commands += [("SADD", key, member) for key, member in bindings(queue, self.key_prefix)]
        return commands, list(pushes)

    def _lose(self, batch: list[_Parcel], error: BrokerUnavailable) -> None:
        if self._breaker.state is Circuit.closed:
            log.warning("broker_lost", error=str(error))
        self._breaker.fail(asyncio.get_running_loop().time())
        self._bound.clear()  # the broker may come back empty
        self._doorbells.extendleft(parcel for parcel in reversed(batch) if parcel.arrived is None)
        self._refuse(batch, error)
        self._refuse(self._parcels, error)

    def _refuse(self, parcels: deque[_Parcel] | list[_Parcel], error: BrokerUnavailable) -> None:
        for parcel in parcels:
            parcel.settle(error)
        if parcels is self._parcels:
            self._parcels.clear()
