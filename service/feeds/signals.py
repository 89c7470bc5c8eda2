"""Wake-ups: a word through Redis that somebody's feed has something new. It carries nothing; Postgres has the truth.

A lost word costs seconds: whoever waits looks by itself now and then.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec
import structlog
from redis.exceptions import RedisError

from callboard_workers.context import of_nobody
from callboard_workers.redis import address
from callboard_workers.runtime import Runtime
from service.settings import Settings

log = structlog.get_logger("service.notifications")

FEW = 100
"""People whom a wake-up names one by one."""
KEY = "notifications.herald"
CHANNEL = "callboard:feeds"
WAITING = 1_000  # words kept while Redis is slow
WITHIN = 1.0  # seconds for Redis


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose feed: users by number, or all numbers of a range. `marked`: something was marked, nothing is new."""

    users: list[int] | None = None
    low: int = 0
    high: int = 0
    marked: bool = False

    def concerns(self, no: int) -> bool:
        """Whether it is about this user."""
        return no in self.users if self.users is not None else self.low <= no <= self.high


_decoder = msgspec.json.Decoder(Word)


def read(raw: bytes) -> Word | None:
    """Read a word; None for what is none."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def channel(settings: Settings) -> str:
    """The channel of this installation."""
    return f"{settings.redis_key_prefix}{CHANNEL}"


def word(users: Sequence[int], low: int | None, high: int | None) -> Word | None:
    """The word about users: each by number where they are few, else their range; None where there are none."""
    if not users or low is None or high is None:
        return None
    return Word(users=list(users)) if len(users) <= FEW else Word(low=low, high=high)


class Herald:
    """Says words in the background; drops the oldest where Redis does not take them."""

    def __init__(self, settings: Settings) -> None:
        self._redis = address.async_client(settings.redis_url, socket_timeout=WITHIN, socket_connect_timeout=WITHIN)
        self._channel = channel(settings)
        self._waiting: deque[Word] = deque(maxlen=WAITING)
        self._saying: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, runtime: Runtime) -> "Herald":
        """The herald of a runtime; closed with it."""
        return runtime.resource("feed_signals", lambda: cls(runtime.state["settings"]), cls.close)

    def say(self, said: Word | None) -> None:
        """Say a word soon. Never blocks, never raises."""
        if said is None:
            return
        self._waiting.append(said)
        if self._saying is None or self._saying.done():
            self._saying = asyncio.get_running_loop().create_task(self._say_all(), context=of_nobody())

    async def close(self) -> None:
        """Say what waits, within a moment, and hang up."""
        if self._saying is not None:
            await asyncio.wait([self._saying], timeout=2 * WITHIN)
            self._saying.cancel()
        await self._redis.aclose()

    async def _say_all(self) -> None:
        while self._waiting:
            said = self._waiting.popleft()
            try:
                async with asyncio.timeout(2 * WITHIN):
                    await self._redis.publish(self._channel, msgspec.json.encode(said))
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("wakeup_lost", error=type(error).__name__, waiting=len(self._waiting))
                self._waiting.clear()
                return
