"""Who is measured: how each worker and each client is started, in the configuration its own documents recommend.

A worker is one process (or one with its children) on one core; results are off everywhere. `rates` are tasks per
second on a machine of 2025: they only size the backlog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PREFORK_CHILDREN = 2


@dataclass(frozen=True)
class Contestant:
    """One way to run tasks. `slots`: tasks in flight, for each task; a missing one is not measured."""

    name: str
    worker: tuple[str, ...]
    client: tuple[str, ...]
    rates: Mapping[str, int]
    slots: Mapping[str, int]
    venv: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    promise: str = "at least once"
    database: bool = False
    publishes: bool = True
    latency: bool = True


def ours(name: str, options: str, rates: Mapping[str, int], **more: object) -> Contestant:
    """Our worker."""
    values: dict[str, object] = {"slots": {"noop": 1000, "kept": 1000, "wait": 2000, "pong": 100, "hold": 2000}, **more}
    return Contestant(
        name,
        (
            *("{python}", "-m", "bench.our_worker", "-c", "{slots}", "-l", "CRITICAL"),
            *("--without-gossip", "--without-mingle"),
        ),
        ("{python}", "-m", "bench.ours"),
        rates,
        env={"BENCH_OPTIONS": options},
        **values,  # type: ignore[arg-type]
    )


def floor(name: str, kind: str, rates: Mapping[str, int]) -> Contestant:
    """The least a worker on Redis can do."""
    return Contestant(
        name,
        ("{python}", "-m", "bench.floors", kind),
        ("{python}", "-m", "bench.floors"),
        rates,
        {"noop": 1000, "wait": 2000, "pong": 1},
        promise="at least once" if kind == "batched" else "at most once",
        publishes=kind == "batched",
    )


def celery(pool: str, rates: Mapping[str, int], slots: Mapping[str, int], *, publishes: bool = False) -> Contestant:
    """Stock Celery with one of its pools."""
    return Contestant(
        f"celery {pool}",
        (
            *("{bin}/celery", "-q", "-A", "celery_app", "worker", "-P", pool, "-c", "{slots}", "-l", "CRITICAL"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
        ("{python}", "celery_app.py"),
        rates,
        slots,
        "celery",
        promise="at most once",
        publishes=publishes,
    )


def taskiq(kind: str) -> Contestant:
    """taskiq over streams or a list."""
    return Contestant(
        f"taskiq {kind}",
        (
            *("{bin}/taskiq", "worker", "taskiq_app:broker", "--workers", "1", "--max-async-tasks", "{slots}"),
            *("--max-prefetch", "100", "--log-level", "CRITICAL"),
        ),
        ("{python}", "taskiq_app.py"),
        {"noop": 2300, "wait": 1100},
        {"noop": 1000, "wait": 2000, "pong": 100, "hold": 2000},
        "taskiq",
        {"BENCH_KIND": kind},
        promise="at most once" if kind == "list" else "at least once",
    )


def dramatiq(kind: str, rates: Mapping[str, int], slots: Mapping[str, int]) -> Contestant:
    """dramatiq with actors on threads or on its event loop."""
    return Contestant(
        f"dramatiq {kind}",
        (
            *("{bin}/dramatiq", "dramatiq_app", "--processes", "1", "--threads", "{slots}"),
            *("--worker-shutdown-timeout", "1000", "--log-file", "/dev/null"),
        ),
        ("{python}", "dramatiq_app.py"),
        rates,
        slots,
        "dramatiq",
        {"BENCH_KIND": kind, "dramatiq_queue_prefetch": "100"},
        publishes=kind == "threads",
    )


def simple(
    name: str,
    worker: tuple[str, ...],
    rates: Mapping[str, int],
    slots: Mapping[str, int],
    promise: str = "at least once",
) -> Contestant:
    """A peer with one way to run it."""
    return Contestant(name, worker, ("{python}", f"{name}_app.py"), rates, slots, name, promise=promise)


ASYNC = {"noop": 100, "wait": 2000, "pong": 100, "hold": 2000}
OURS = "callboard"
POOL = "callboard, Celery's consumer"
DURABLE = "callboard, durable"
BATCHED = "floor: batched fetch"
BLPOP = "floor: one BLPOP per task"

CONTESTANTS: tuple[Contestant, ...] = (
    floor(BATCHED, "batched", {"noop": 30_000, "wait": 14_000}),
    floor(BLPOP, "blpop", {"noop": 4_500, "wait": 3_500}),
    ours(OURS, '{"own_consumer": true}', {"noop": 12_000, "kept": 8_000, "wait": 6_000}),
    ours(DURABLE, '{"own_consumer": true}', {"noop": 2_500, "wait": 2_500}, database=True, publishes=False),
    ours(POOL, '{"own_consumer": false}', {"noop": 700, "wait": 600}, publishes=False),
    celery(
        "prefork",
        {"noop": 700, "kept": 500},
        {"noop": PREFORK_CHILDREN, "kept": PREFORK_CHILDREN, "pong": PREFORK_CHILDREN},
        publishes=True,
    ),
    celery("threads", {"noop": 1_000, "wait": 380}, {"noop": 10, "wait": 100, "pong": 10, "hold": 1000}),
    celery("gevent", {"noop": 560, "wait": 100}, {"noop": 100, "wait": 1000, "pong": 100, "hold": 1000}),
    taskiq("streams"),
    taskiq("list"),
    dramatiq("threads", {"noop": 5_000, "wait": 600}, {"noop": 8, "wait": 100, "pong": 8, "hold": 1000}),
    dramatiq("asyncio", {"noop": 4_000, "wait": 900}, {"noop": 8, "wait": 200, "pong": 8, "hold": 1000}),
    simple(
        "arq",
        ("{bin}/arq", "arq_app.WorkerSettings", "--custom-log-dict", "quiet.ARQ"),
        {"noop": 1_500, "wait": 1_100},
        ASYNC,
    ),
    simple("saq", ("{bin}/saq", "saq_app.settings", "--quiet"), {"noop": 1_000, "wait": 1_200}, ASYNC),
    simple(
        "huey",
        ("{bin}/huey_consumer", "huey_app.huey", "-w", "{slots}", "-k", "thread", "-q"),
        {"noop": 4_500, "wait": 700},
        {"noop": 8, "wait": 100, "pong": 8, "hold": 1000},
        promise="at most once",
    ),
    simple("streaq", ("{bin}/streaq", "run", "streaq_app:worker"), {"noop": 840, "wait": 730}, ASYNC),
)

FLOORS = (BATCHED, BLPOP)
OWN = (OURS, DURABLE, POOL)
PEERS = tuple(one.name for one in CONTESTANTS if one.name not in FLOORS + OWN)


def chosen(only: str) -> list[Contestant]:
    """The contestants whose name contains one of the words; all, when there is none."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    return [one for one in CONTESTANTS if not words or any(word in one.name.lower() for word in words)]
