"""Rate limits of a key and of its tenant, kept in Redis, so that all processes of the API share them.

The algorithm is GCRA: a bucket of `quota` requests that fills up evenly within `window`. One script decides for all
requests of this process that ask at the same time, atomically: at most `quota` at once, and `quota` more each window,
however many processes there are. Where Redis does not answer, requests pass: a limit protects the service, it is not
the service.
"""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from callboard_workers.common.batcher import Batcher
from callboard_workers.redis import address
from service.settings import Settings

log = structlog.get_logger("service.web")

PATIENCE = 0.25  # seconds for Redis' answer
PAUSE = 1.0  # seconds without a question after one that was not answered
MAX_REFUSED = 10_000  # refusals kept in mind

SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limits = tonumber(ARGV[1])
local answers = {}
for group = 0, #KEYS / limits - 1 do
  local granted = tonumber(ARGV[2 + 2 * limits + group])
  local full = {}
  for i = 1, limits do
    local interval, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local at = tonumber(redis.call('GET', KEYS[group * limits + i]) or 0)
    full[i] = math.min(math.max(at, now), now + window)
    granted = math.min(granted, math.floor((now + window - full[i]) / interval))
  end
  local answer = {granted}
  for i = 1, limits do
    local interval, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local at = full[i] + granted * interval
    if granted > 0 then
      redis.call('SET', KEYS[group * limits + i], string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000) + 1)
    end
    local free = now + window - at
    local left = math.floor(free / interval)
    answer[#answer + 1] = left
    answer[#answer + 1] = math.ceil((left + 1) * interval - free)
  end
  answers[#answers + 1] = answer
end
return answers
"""
# Times are microseconds of Redis' clock. A key holds when its bucket will be full again, and expires then.


class Caller(NamedTuple):
    """Whose request it is; a test key has buckets of its own, so that a test never slows the real thing down."""

    tenant_id: UUID
    key_id: UUID
    mode: str


class Limit(NamedTuple):
    """`quota` requests in `window` seconds; `name` is what it counts by: key or tenant."""

    name: str
    quota: int
    window: float

    @property
    def policy(self) -> str:
        """The limit as an item of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        return f'"{self.name}";q={self.quota};w={math.ceil(self.window)}'


class Verdict(msgspec.Struct, frozen=True):
    """Whether a request may pass, the fields its answer bears, and after how many seconds to try again."""

    allowed: bool
    fields: tuple[tuple[bytes, bytes], ...] = ()
    retry_after: int = 0
    spent: str = ""


UNCHECKED = Verdict(True)


class Limiter(Collector):
    """Decides for one process; `limits` are one or two."""

    def __init__(self, redis: Redis, limits: Sequence[Limit], prefix: str = "") -> None:
        self._redis = redis
        self._limits = tuple(limits)
        self._prefix = f"{prefix}callboard:limit:"
        self._script = redis.register_script(SCRIPT)
        self._terms = [value for limit in limits for value in (limit.window * 1e6 / limit.quota, limit.window * 1e6)]
        self._policy = (b"ratelimit-policy", ", ".join(limit.policy for limit in limits).encode())
        self._asking: Batcher[Caller, Verdict] = Batcher(self._ask)
        self._refused: dict[Caller, tuple[float, Verdict]] = {}
        self._silent_until = 0.0
        self._counts = {"allowed": 0, "refused": 0, "unchecked": 0}

    @classmethod
    def of(cls, settings: Settings, registry: CollectorRegistry) -> "Limiter | None":
        """Make the limiter that the settings describe; None where nothing is limited."""
        quotas = {"key": settings.rate_limit_key, "tenant": settings.rate_limit_tenant}
        limits = [Limit(name, quota, settings.rate_limit_window) for name, quota in quotas.items() if quota]
        if not limits:
            return None
        client = address.async_client(
            settings.redis_url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 1),  # once: a connection that Redis closed while it was idle
        )
        made = cls(client, limits, settings.redis_key_prefix)
        registry.register(made)
        return made

    async def check(self, caller: Caller) -> Verdict:
        """Count one request of `caller` and decide; a refusal is known here until it may pass again."""
        known = self._refused.get(caller)
        if known is not None and known[0] > time.monotonic():
            verdict = known[1]
        elif self._silent_until > time.monotonic():
            verdict = UNCHECKED
        else:
            verdict = await self._asking.submit(caller)
        self._counts["unchecked" if verdict is UNCHECKED else "allowed" if verdict.allowed else "refused"] += 1
        return verdict

    async def close(self) -> None:
        """Answer what was asked and let go of Redis."""
        await self._asking.close()
        await self._redis.aclose()

    def collect(self) -> Iterator[Metric]:
        """Give the counts as metrics."""
        found = CounterMetricFamily("http_rate_limit", "Requests that met a rate limit.", labels=["outcome"])
        for outcome, count in self._counts.items():
            found.add_metric([outcome], count)
        yield found

    async def _ask(self, callers: list[Caller]) -> list[Verdict]:
        groups: dict[Caller, int] = {}
        for caller in callers:
            groups[caller] = groups.get(caller, 0) + 1
        keys = [key for caller in groups for key in self._keys(caller)]
        try:
            async with asyncio.timeout(PATIENCE):
                answers = await self._script(keys, [len(self._limits), *self._terms, *groups.values()])
        except Exception as error:
            self._silent_until = time.monotonic() + PAUSE
            log.warning("rate_limit_unchecked", error=f"{type(error).__name__}: {error}"[:200], requests=len(callers))
            return [UNCHECKED] * len(callers)
        return self._share(callers, dict(zip(groups, answers, strict=True)))

    def _keys(self, caller: Caller) -> list[str]:
        names = {"key": caller.key_id.hex, "tenant": f"{caller.tenant_id.hex}:{caller.mode}"}
        return [f"{self._prefix}{limit.name}:{names[limit.name]}" for limit in self._limits]

    def _share(self, callers: Sequence[Caller], answers: dict[Caller, list[int]]) -> list[Verdict]:
        """Let pass the first of each group, as many as were granted."""
        left = {caller: answer[0] for caller, answer in answers.items()}
        passes = {caller: self._verdict(True, answer) for caller, answer in answers.items()}
        found = []
        for caller in callers:
            left[caller] -= 1
            found.append(passes[caller] if left[caller] >= 0 else self._refuse(caller, answers[caller]))
        return found

    def _refuse(self, caller: Caller, answer: list[int]) -> Verdict:
        if len(self._refused) >= MAX_REFUSED:
            self._refused.clear()
        verdict = self._verdict(False, answer)
        wait = max(answer[place + 1] for place in range(1, len(answer), 2) if answer[place] <= 0)
        self._refused[caller] = time.monotonic() + wait / 1e6, verdict
        return verdict

    def _verdict(self, allowed: bool, answer: list[int]) -> Verdict:
        items, spent, retry_after = [], [], 1
        for limit, left, wait in zip(self._limits, answer[1::2], answer[2::2], strict=True):
            seconds = max(1, math.ceil(wait / 1e6))
            items.append(f'"{limit.name}";r={left};t={seconds}')
            if left <= 0:
                spent.append(f"{limit.quota} requests of this {limit.name} in {limit.window:g} s")
                retry_after = max(retry_after, seconds)
        fields = (self._policy, (b"ratelimit", ", ".join(items).encode()))
        return Verdict(allowed, fields, retry_after, " and ".join(spent))
