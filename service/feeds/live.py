"""Who is looking live: the streams of one process, what wakes them, and how many there may be.

One subscription to Redis wakes them all. While it is away, and now and then anyway, each looks by itself.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from callboard_workers.context import of_nobody
from callboard_workers.redis import address
from callboard_workers.runtime import Runtime
from service.core.errors import TooManyRequests
from service.core.logging import Seldom
from service.feeds.signals import Word, channel, read
from service.settings import Settings
from service.web.shutdown import when_stopping

log = structlog.get_logger("service.notifications")

KEY = "notifications.live"
LOOKS = 4  # at once, of all streams of the process: a wake-up of thousands leaves connections for requests
CALM, ALONE = 15.0, 1.0  # seconds between two looks while Redis would wake us, and while it would not
PING = 10.0  # seconds of silence after which Redis is asked whether it is there
PATIENCE = 2.0  # seconds for its answer
AGAIN = (0.1, 5.0)  # seconds until a lost subscription is tried again: the first time, and at most
FLUSH = 0.1  # seconds from the last word of a stream to the end of its connection


class Seat:
    """One stream's place: it is woken when there may be something new for its user."""

    def __init__(self, no: int) -> None:
        self.no = no
        self.marked = False
        self.gone = False
        self.over = False
        self._last_call = False
        self._bell = asyncio.Event()

    def wake(self, *, marked: bool = False) -> None:
        """Have it look; `marked`: and tell the counts."""
        self.marked = self.marked or marked
        self._bell.set()

    def leave(self) -> None:
        """The caller has gone."""
        self.gone = True
        self.last_call()

    def end(self) -> None:
        """End the stream: its caller may read no more."""
        self.over = True
        self.last_call()

    def last_call(self) -> None:
        """Nothing is to be waited for any more."""
        self._last_call = True
        self._bell.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until it is woken or the time is over; whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True

    def ready(self) -> None:
        """Forget the wake-ups so far; call it before a look, so that none is lost between look and wait."""
        if not self._last_call:
            self._bell.clear()


class Live:
    """The streams of one process; they end when it stops."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime = runtime
        self.stopping = False
        self.looks = asyncio.Semaphore(LOOKS)
        self._away = Seldom()
        self._settings = settings
        self._seats: dict[int, set[Seat]] = {}
        self._keys: dict[UUID, int] = {}
        self._hearing = False
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, runtime: Runtime) -> "Live":
        """The streams of a runtime; told to end when it stops."""
        found: Live | None = runtime.state.get(KEY)
        if found is None:
            found = runtime.state[KEY] = cls(runtime, runtime.state["settings"])
            runtime.resources.push_async_callback(found.close)
            when_stopping(found.stop)
        return found

    @property
    def calm(self) -> float:
        """Seconds that a stream may go without a look."""
        return CALM if self._hearing else ALONE

    def check(self, key_id: UUID) -> None:
        """Raise TooManyRequests where a key has as many streams as it may."""
        most = self._settings.stream_limit
        if self._keys.get(key_id, 0) >= most:
            raise TooManyRequests(f"{most} streams of this key are open already (STREAM_LIMIT).", retry_after=5)

    @contextmanager
    def seat(self, key_id: UUID, no: int) -> Iterator[Seat]:
        """Take a place for a stream of a key. Raises TooManyRequests."""
        self.check(key_id)
        self._keys[key_id] = self._keys.get(key_id, 0) + 1
        seat = Seat(no)
        self._seats.setdefault(no, set()).add(seat)
        if self._listening is None:
            loop = asyncio.get_running_loop()
            self._listening = loop.create_task(self._listen(), name="feed-wakeups", context=of_nobody())
        try:
            yield seat
        finally:
            self._keys[key_id] -= 1
            if not self._keys[key_id]:
                del self._keys[key_id]
            self._seats[no].discard(seat)
            if not self._seats[no]:
                del self._seats[no]

    def missed(self, error: Exception) -> None:
        """Log that Postgres was away when a stream looked; once, though thousands miss it together."""
        if self._away.due():
            log.warning("feed_away", error=type(error).__name__, hint="live streams stay open and look again")

    def stop(self) -> None:
        """Tell every stream to end."""
        self.stopping = True
        for seats in self._seats.values():
            for seat in seats:
                seat.last_call()

    async def close(self) -> None:
        """End every stream, and give their ends a second to be sent."""
        self.stop()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        for _ in range(20):
            if not self._keys:
                return
            await asyncio.sleep(0.05)
        await asyncio.sleep(FLUSH)

    def _wake_all(self) -> None:
        for seats in self._seats.values():
            for seat in seats:
                seat.wake()

    def _wake(self, word: Word) -> None:
        chosen = [no for no in word.users if no in self._seats] if word.users is not None else list(self._seats)
        for no in chosen:
            if word.concerns(no):
                for seat in self._seats[no]:
                    seat.wake(marked=word.marked)

    async def _listen(self) -> None:
        """Forever: subscribe, wake whom the words are about, and subscribe again when that is lost."""
        pause = AGAIN[0]
        while not self.stopping:
            try:
                await self._hear()
            except (RedisError, OSError, TimeoutError) as error:
                if self._hearing:
                    pause = AGAIN[0]
                    log.warning("wakeups_lost", error=type(error).__name__, hint="streams look by themselves meanwhile")
            except Exception:
                log.exception("wakeups_failed")
            self._hearing = False
            self._wake_all()
            await asyncio.sleep(pause)
            pause = min(2 * pause, AGAIN[1])

    async def _hear(self) -> None:
        client = address.async_client(
            self._settings.redis_url, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE
        )
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(channel(self._settings))
                await self._serve(subscription)
        finally:
            await client.aclose()

    async def _serve(self, subscription: redis.asyncio.client.PubSub) -> None:
        asked = False
        while not self.stopping:
            message = await subscription.get_message(timeout=PATIENCE if asked else PING)
            if message is None:
                if asked:
                    raise TimeoutError("Redis does not answer")
                await subscription.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                self._hearing = True
                self._wake_all()  # something may have come while nobody heard
            elif message["type"] == "message" and (word := read(message["data"])) is not None:
                self._wake(word)
