"""A small thread of its own: says that this worker lives, takes over what dead ones left, sees the loop stand still."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from callboard_workers.metrics import LAG
from callboard_workers.redis import address
from callboard_workers.redis.in_flight import DEAD_KEPT
from callboard_workers.redis.redelivery import again
from callboard_workers.redis.scripts import BURY, HEARTBEAT, PUT_BACK, RENEW, TAKE, Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.common.loop_thread import LoopThread
    from callboard_workers.redis.keys import Keys

log = structlog.get_logger(__name__)

REMEMBER = 86_400
"""Seconds for which a worker that wakes up late can learn that it was taken for dead."""
INHERITED = b"r:"
"""How the fields begin that TAKE puts into our hands."""
BEGUN = b":s"
"""How they end when the message had begun to run: only against those the crash counts."""
FAREWELL = 0.5
"""Seconds for which a broker that does not answer is waited for at the end."""
HEARTBEAT_SECONDS = 2.0
"""Seconds between two reports of this process to Redis, which `service.health.checks` reads."""
STALL = 1.0
"""Seconds without an answer from the loop after which its stack is logged."""


class Watchdog:
    """Renews the lease even while the loop is blocked; the lease says that the process lives, not that it is well."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        owner: Callable[[], str],
        loop: LoopThread,
        *,
        lease: float,
        max_crashes: Callable[[str], int],
        lost: Callable[[str, bytes], None],
        failed: Callable[[bytes, str], None],
        queues: Callable[[], list[str]],
        declared: Callable[[], list[str]],
    ) -> None:
        self.lag = 0.0
        """Seconds the loop took to answer last time; grows while it does not answer."""
        self._keys = keys
        self._owner = owner
        self._loop = loop
        self._lease = lease
        self._max_crashes = max_crashes
        self._lost = lost
        self._failed = failed
        self._queues = queues
        self._declared = declared
        self._name = f"{owner().partition('#')[0]}#{os.getpid()}"
        timeout = max(0.5, lease / 4)
        self._redis = address.client(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._over = threading.Event()
        self._asked = 0.0
        self._stalled = False
        self._doubt = False
        """An answer of Redis was lost: what dead workers held may be in our hands without our knowing."""
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Signs the owner on, if the broker answers, and starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what it still waits for is not waited for long."""
        self._over.set()
        self._thread.join(FAREWELL)
        if self._thread.is_alive():
            self._redis.connection_pool.disconnect()  # from under it: it hears of a lost connection at once
            self._thread.join(FAREWELL)
        self._redis.close()

    def _run(self) -> None:
        self._report()  # at once: a process that is stopped right after its start is reported as silent, too
        next_round, next_report = 0.0, time.monotonic() + HEARTBEAT_SECONDS
        while not self._over.wait(0.25):
            self._look_at_loop()
            if time.monotonic() >= next_report:
                next_report = time.monotonic() + HEARTBEAT_SECONDS
                self._report()
            if time.monotonic() >= next_round:
                next_round = time.monotonic() + self._lease / 3
                try:
                    self._renew()
                    self._take_over()
                except (RedisError, OSError) as error:
                    self._doubt = True
                    log.warning("lease_not_renewed", error=str(error))
                    next_round = time.monotonic() + min(1.0, self._lease / 10)
                except Exception:
                    log.exception("watchdog_failed")
        with suppress(RedisError, OSError):
            self._redis.hdel(self._keys.heartbeats, self._name)

    def _report(self) -> None:
        """Reports that this process runs, which queues it serves, and for how long its event loop has not responded.

        A failure is left to the renewal of the lease, which tries the same server and logs.
        """
        now = time.monotonic()
        lag = now - self._asked if self._asked else self.lag
        report = {"queues": self._queues(), "declared": self._declared(), "lag": round(lag, 1)}
        with suppress(RedisError, OSError):
            self._call(HEARTBEAT, [self._keys.heartbeats], [self._name, msgspec.json.encode(report)])

    def _renew(self) -> None:
        owner = self._owner()
        if not self._call(RENEW, [self._keys.owners, self._keys.taken(owner)], [owner, int(self._lease * 1000)]):
            log.error("lease_lost", owner=owner)

    def _take_over(self) -> None:
        """Puts back, one by one, what dead workers held: to be served next, marked as redelivered."""
        if self._doubt:
            self._put_back_the_rest()
            self._doubt = False
        while not self._over.is_set():
            me = self._owner()
            mine = self._keys.unacked(me)
            taken = self._call(
                TAKE,
                [self._keys.owners, mine],
                [me, self._keys.unacked(""), self._keys.taken(""), REMEMBER, int(self._lease * 1000)],
            )
            if not taken:
                return
            owner, held = taken[0].decode(), taken[1:]
            log.warning("worker_died", owner=owner, messages=len(held) // 2)
            for i in range(0, len(held), 2):
                key, _, envelope = held[i + 1].partition(b"\n")
                self._redeliver(mine, held[i], key, envelope)

    def _put_back_the_rest(self) -> None:
        """What was taken over before an answer was lost, and has not been put back."""
        mine = self._keys.unacked(self._owner())
        held: Any = self._redis.hgetall(mine)
        for name, value in held.items():
            if name.startswith(INHERITED):
                key, _, envelope = value.partition(b"\n")
                self._redeliver(mine, name, key, envelope)

    def _redeliver(self, mine: str, name: bytes, key: bytes, envelope: bytes) -> None:
        begun = name.endswith(BEGUN)
        following = again(envelope, crashed=begun, doubt=not begun)
        crashed = begun and not following.durable  # the row of a durable message counts for itself
        if crashed:  # before it can run again, and die again
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon(self._lost, key.decode(), following.envelope)
        if not crashed or following.crashes < self._max_crashes(following.task):
            self._call(PUT_BACK, [mine, key], [name, following.envelope])
        else:
            reason = f"its worker died {following.crashes} times while it ran"
            log.error("message_buried", reason=reason)
            with suppress(RuntimeError):  # the loop is closed; first, so that a lost answer of Redis loses no result
                self._loop.call_soon(self._failed, following.envelope, reason)
            letter = {"reason": reason, "at": time.time(), "key": key.decode(), "envelope": following.envelope}
            self._call(BURY, [mine, self._keys.dead], [name, msgspec.msgpack.encode(letter), DEAD_KEPT])

    def _call(self, script: Script, keys: list[Any], args: list[Any]) -> Any:
        try:
            return self._redis.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return self._redis.eval(script.text, len(keys), *keys, *args)

    def _look_at_loop(self) -> None:
        now = time.monotonic()
        if self._asked:
            self.lag = now - self._asked
            LAG.set(self.lag)
            if self.lag > STALL and not self._stalled:
                self._stalled = True
                log.error("loop_stalled", seconds=round(self.lag, 1), stack=self._stack())
            return
        if self._stalled:
            self._stalled = False
            log.warning("loop_runs_again")
        self._asked = now
        try:
            self._loop.call_soon(self._answer)
        except RuntimeError:  # closed
            self._asked = 0.0

    def _answer(self) -> None:
        self.lag = time.monotonic() - self._asked
        LAG.set(self.lag)
        self._asked = 0.0

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""
