"""Operational checks: the findings that `status`, `doctor`, the console, `/health/ready` and `/metrics` share.

In a route of the API, the console's attention line included, read them from the process's `Checks`, which asks Postgres
and Redis at most every two seconds:

    findings = await request.app.state.checks.findings()

Each `Finding` has a `severity` (`error` or `warning`), a `sentence` that says what is wrong and a `fix` that says what
to do; show both as they are. The list is empty when all is well, and errors come first. No finding names a tenant.
A command that has an engine and a Redis client of its own calls `examine`.
"""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Literal

import asyncpg
import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from callboard_workers.actors.actor import registry
from callboard_workers.redis.protocol import list_keys
from service.db.engine import cause, is_older
from service.health.heartbeats import Process, list_workers

PROBE_SECONDS = 2.0
"""Seconds for one server to respond."""
FRESH_SECONDS = 2.0
"""Seconds for which a process returns the same report."""
FRESH_FACTOR = 10
"""A report that took long is returned for this multiple of the time it took: checks never keep Postgres busy."""
BLOCKED_SECONDS = 5.0
"""Seconds without a response of a worker's event loop that are reported."""
MIN_FREE_BYTES = 64 * 1024 * 1024
"""Free space of the data folder below which writing is about to fail."""
DEAD = "workers:dead"
"""The Redis list of `callboard_workers.redis.keys`; importing that would load Celery."""
FORGED = "workers:forged"
"""The Redis list of messages that no key of ours signed."""
UNREADY = frozenset({"postgres", "schema", "postgres-full"})
"""Names of the findings with which no work can be accepted."""

SPILL = text(
    "SELECT set_config('work_mem', '64kB', true), set_config('temp_tablespaces', '', true)"
)  # of this transaction: the next statement writes about a megabyte of temporary data to the database's own disk
WRITE = text("SELECT count(*) FROM generate_series(1, 60000)")
WAITING = text("SELECT queue, sum(due + scheduled)::bigint AS waiting FROM ledger_depths() GROUP BY queue")
ENDPOINTS = text("SELECT failing, since FROM webhook_endpoints_failing()")
REVISION = text("SELECT version_num FROM alembic_version")
TABLE = text("SELECT to_regclass('alembic_version')")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: a stable `name`, the `severity`, a `sentence` for people, and the `fix`."""

    name: str
    severity: Literal["error", "warning"]
    sentence: str
    fix: str


class Check(msgspec.Struct):
    """One dependency: `ok`, the milliseconds it took to respond, and what is wrong with it."""

    ok: bool
    ms: float
    detail: str = ""


class Report(msgspec.Struct, frozen=True):
    """The state of the dependencies, by name, and all findings, errors first."""

    checks: dict[str, Check]
    findings: list[Finding]


class Checks:
    """The checks of one process; workers, queues and disks are checked at most every `FRESH_SECONDS`."""

    def __init__(self, engine: AsyncEngine, redis: Redis, head: str, *, prefix: str = "", data: str = "") -> None:
        self._engine, self._redis, self._head = engine, redis, head
        self._prefix, self._data = prefix, data
        self._work: list[Finding] = []
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def report(self) -> Report:
        """Return the state of the dependencies, asked now, and the findings, at most a few seconds old."""
        checks = await _dependencies(self._engine, self._redis, self._head)
        async with self._lock:
            if time.monotonic() >= self._until or not _all_ok(checks):
                began = time.monotonic()
                self._work = await _work(checks, self._engine, self._redis, self._prefix, self._data)
                ended = time.monotonic()
                self._until = ended + max(FRESH_SECONDS, (ended - began) * FRESH_FACTOR) if _all_ok(checks) else 0.0
            return _report(checks, self._work)

    async def findings(self) -> list[Finding]:
        """Return the findings, errors first; empty when all is well. Never raises."""
        return (await self.report()).findings


async def examine(engine: AsyncEngine, redis: Redis, head: str, *, prefix: str = "", data: str = "") -> Report:
    """Check Postgres, its schema, Redis, the workers, the queues, the disks and the webhook endpoints.

    `head` is the schema revision of this version, `prefix` that of the Redis keys, `data` the folder of `callboard up`
    (empty for none). Never raises; takes at most a few `PROBE_SECONDS`.
    """
    checks = await _dependencies(engine, redis, head)
    return _report(checks, await _work(checks, engine, redis, prefix, data))


async def _dependencies(engine: AsyncEngine, redis: Redis, head: str) -> dict[str, Check]:
    names = ("postgres", "schema", "redis")
    probes = probe(lambda: _ping(engine)), probe(lambda: _schema(engine, head)), probe(lambda: _pong(redis))
    return dict(zip(names, await asyncio.gather(*probes), strict=True))


async def _work(checks: dict[str, Check], engine: AsyncEngine, redis: Redis, prefix: str, data: str) -> list[Finding]:
    """Run every check whose servers respond."""
    findings = [*await _collect(lambda: _data(data))]
    if checks["redis"].ok:
        findings += await _collect(lambda: _redis(redis, prefix))
    if checks["postgres"].ok and checks["schema"].ok:
        findings += await _collect(lambda: _postgres(engine))
        findings += await _collect(lambda: _endpoints(engine))
    if _all_ok(checks):
        findings += await _collect(lambda: _workers(engine, redis, prefix))
    return findings


def _all_ok(checks: dict[str, Check]) -> bool:
    return all(check.ok for check in checks.values())


def _report(checks: dict[str, Check], work: list[Finding]) -> Report:
    found = [*_of_dependencies(checks), *work]
    return Report(checks, sorted(found, key=lambda finding: finding.severity))


async def probe(check: Callable[[], Awaitable[str]]) -> Check:
    """Run one check, bounded in time; it returns what is wrong, and an exception is its detail."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            wrong = await check()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0][:200]
    return Check(not wrong, round((time.perf_counter() - started) * 1000, 1), wrong)


async def _collect(check: Callable[[], Awaitable[Sequence[Finding]]]) -> Sequence[Finding]:
    """Run one check; one that cannot be run is a finding itself."""
    try:
        async with asyncio.timeout(PROBE_SECONDS * 2):
            return await check()
    except Exception as error:
        if is_older(error):
            return ()  # the schema's own check reports it
        said = f"{type(error).__name__}: {cause(error)}".rstrip(": ").splitlines()[0][:200]
        return [_warning("check-failed", f"A check could not be run: {said}.", "Run `callboard doctor`.")]


def _error(name: str, sentence: str, fix: str) -> Finding:
    return Finding(name=name, severity="error", sentence=sentence, fix=fix)


def _warning(name: str, sentence: str, fix: str) -> Finding:
    return Finding(name=name, severity="warning", sentence=sentence, fix=fix)


async def _ping(engine: AsyncEngine) -> str:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return ""


async def _schema(engine: AsyncEngine, head: str) -> str:
    async with engine.connect() as connection:
        if (await connection.execute(TABLE)).scalar_one_or_none() is None:
            return "no tables: run `callboard migrate`"
        found = (await connection.execute(REVISION)).scalars().all()
    return "" if head in found else f"at {', '.join(found) or 'nothing'}, not {head}: run `callboard migrate`"


async def _pong(redis: Redis) -> str:
    try:
        await redis.ping()
    except ResponseError as error:
        if not str(error).startswith("MISCONF"):  # it responds, and refuses writes: the check of its disk says why
            raise
    return ""


FIXES = {
    "postgres": (
        "Postgres",
        "Nothing can be accepted until it responds. Check that it runs and DATABASE_URL names it.",
    ),
    "schema": ("The database schema", "Run `callboard migrate` of the newest version in use."),
    "redis": ("Redis", "Accepted work waits until it responds. Check that it runs and REDIS_URL names it."),
}


def _of_dependencies(checks: dict[str, Check]) -> Iterator[Finding]:
    for name, check in checks.items():
        if check.ok or (name == "schema" and not checks["postgres"].ok):
            continue
        subject, fix = FIXES[name]
        problem = (
            f"is {check.detail.partition(':')[0]}"
            if name == "schema"
            else f"does not respond: {check.detail.rstrip('.')}"
        )
        yield _error(name, f"{subject} {problem}.", fix)


async def _postgres(engine: AsyncEngine) -> list[Finding]:
    """Write temporary data: a full disk refuses it before it refuses the next row."""
    try:
        async with engine.connect() as connection:
            await connection.execute(SPILL)
            await connection.execute(WRITE)
    except Exception as error:
        if not isinstance(cause(error), asyncpg.DiskFullError):
            raise
        return [
            _error(
                "postgres-full",
                f"The disk of Postgres is full: {str(cause(error)).splitlines()[0][:200]}.",
                "Free space on the disk of Postgres, or enlarge it. Requests are answered with 503 until then.",
            )
        ]
    return []


async def _endpoints(engine: AsyncEngine) -> list[Finding]:
    async with engine.connect() as connection:
        row = (await connection.execute(ENDPOINTS)).one()
    if not row.failing:
        return []
    fails = "1 webhook endpoint fails" if row.failing == 1 else f"{row.failing} webhook endpoints fail"
    return [
        _warning(
            "endpoint-failing",
            f"{fails} every call, since {row.since:%Y-%m-%d %H:%M} UTC.",
            "See Webhooks in the console for the last response, and fix the endpoint. Deliveries wait and are retried.",
        )
    ]


async def _redis(redis: Redis, prefix: str) -> list[Finding]:
    async with redis.pipeline(transaction=False) as pipe:
        pipe.info("memory")
        pipe.info("persistence")
        pipe.llen(f"{prefix}{DEAD}")
        pipe.llen(f"{prefix}{FORGED}")
        memory, persistence, dead, forged = await pipe.execute()
    findings = []
    limit = int(memory.get("maxmemory") or 0)
    if limit and memory["used_memory"] >= limit and memory.get("maxmemory_policy") == "noeviction":
        findings.append(
            _error(
                "redis-full",
                f"Redis has used all of its {limit // 1048576} MiB and refuses writes.",
                "Raise `maxmemory`, or find what fills it with `redis-cli --bigkeys`. Accepted work waits in Postgres.",
            )
        )
    refused = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if persistence.get(name) == "err"]
    if refused:
        findings.append(
            _error(
                "redis-disk",
                f"Redis cannot write to its disk ({', '.join(refused)}: err).",
                "Free space on the disk of Redis and check its log. Accepted work waits in Postgres.",
            )
        )
    if dead:
        tasks = "1 task of a Celery client has" if dead == 1 else f"{dead} tasks of Celery clients have"
        findings.append(
            _warning(
                "tasks-buried",
                f"{tasks} failed for good and wait in Redis.",
                "`callboard dead` and the console's dead letters list each with its reason; `callboard requeue ID`"
                " queues one again, and `callboard resolve ID --as done` removes it.",
            )
        )
    if forged:
        findings.append(
            _warning(
                "messages-forged",
                f"{forged} messages in Redis have no signature of TASK_SIGNING_KEYS and were refused.",
                "Give the client that sent them the keys, or find who else writes to Redis: `celery -A service inspect"
                " dead` lists them, `redis-cli DEL workers:forged` removes them.",
            )
        )
    return findings


async def _workers(engine: AsyncEngine, redis: Redis, prefix: str) -> list[Finding]:
    workers = await list_workers(redis, prefix)
    async with engine.connect() as connection:
        known = {actor.queue for actor in registry}.union(*(worker.declared for worker in workers))
        waiting = await _waiting(connection, redis, prefix, known)
    alive = [worker for worker in workers if worker.alive]
    findings = [_silent(worker, alone=not alive) for worker in workers if not worker.alive]
    findings += [_blocked(worker) for worker in alive if worker.lag > BLOCKED_SECONDS]
    if not alive:
        total = sum(waiting.values())
        make = _error if total else _warning
        sentence = f"No worker runs; {_messages(total)}." if total else "No worker runs."
        findings.append(
            make("workers-missing", sentence, "Start one: `callboard worker`, or `celery -A service worker`.")
        )
    elif all(worker.queues is not None for worker in alive):
        served = {queue for worker in alive for queue in worker.queues or ()}
        findings += [_unserved(queue, count) for queue, count in sorted(waiting.items()) if queue not in served]
    return findings


async def _waiting(connection: AsyncConnection, redis: Redis, prefix: str, known: set[str]) -> dict[str, int]:
    """Count what waits in each queue: rows of the ledger; where there are none, entries of the Redis lists.

    Those of a queue with rows are not added: most of them only wake workers for these rows, some more than once.
    """
    found = {row.queue: int(row.waiting) for row in await connection.execute(WAITING)}
    queues = sorted(known | found.keys())
    async with redis.pipeline(transaction=False) as pipe:
        for queue in queues:
            for key in list_keys(queue, prefix):
                pipe.llen(key)
        lengths = iter(await pipe.execute())
    for queue in queues:
        entries = sum(next(lengths) for _ in list_keys(queue, prefix))
        found[queue] = found.get(queue) or entries
    return {queue: count for queue, count in found.items() if count}


def _silent(worker: Process, *, alone: bool) -> Finding:
    make = _error if alone else _warning
    return make(
        "worker-silent",
        f"Worker {worker.node} (process {worker.pid}) has not reported for {worker.silent:.0f} s.",
        "It is stopped, killed, overloaded or cut off from Redis: start it again, or continue it with"
        f" `kill -CONT {worker.pid}`.",
    )


def _blocked(worker: Process) -> Finding:
    return _error(
        "worker-blocked",
        f"The event loop of worker {worker.node} (process {worker.pid}) has not responded for {worker.lag:.0f} s.",
        "Its log has the stack (`loop_stalled`): an actor blocks the loop. Make it async, or declare it with `def`.",
    )


def _unserved(queue: str, count: int) -> Finding:
    return _error(
        "queue-unserved",
        f"{_messages(count)} in queue {queue}, which no worker serves.",
        f"Start a worker for it: `QUEUES={queue} callboard worker`, or start workers without QUEUES.",
    )


def _messages(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count} messages wait"


async def _data(folder: str) -> list[Finding]:
    if not folder:
        return []
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
    if free >= MIN_FREE_BYTES:
        return []
    return [
        _error(
            "data-full",
            f"The disk of {folder} is almost full: {free // 1048576} MiB are free.",
            "Free space there, or move the folder to a larger disk and name it with --data.",
        )
    ]
