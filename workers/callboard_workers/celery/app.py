"""The Celery app: stock Celery with our pool, our tasks and safe defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu.entity import Exchange, Queue

from callboard_workers.celery import control  # noqa: F401 - `celery inspect|control` and the worker find its commands
from callboard_workers.celery.actor_task import bind, route
from callboard_workers.celery.bridge import bridged, is_async
from callboard_workers.celery.job import guard
from callboard_workers.celery.options import WorkerOptions
from callboard_workers.celery.signing import sign_tasks
from callboard_workers.redis.address import Sentinels, is_sentinel
from callboard_workers.redis.protocol import PRIORITY_STEPS, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from callboard_workers.actors.actor import Actor
    from callboard_workers.runtime import Runtime

POOL = "callboard_workers.celery.pool:Pool"
CONSUMER = "callboard_workers.celery.choice:make_consumer"


class App(Celery):
    """A Celery app whose tasks may be `async def` and whose worker has one Runtime."""

    task_cls = "callboard_workers.celery.task:Task"

    def __init__(
        self,
        *args: Any,
        runtime_factory: Callable[[], Awaitable[Runtime]] | None = None,
        worker_options: WorkerOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.runtime_factory = runtime_factory
        self.worker_options = worker_options or WorkerOptions()

    def _task_from_fun(self, fun: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """As Celery's, for coroutine functions too; `autoretry_for` then sees what they raise."""
        return _guarded(super()._task_from_fun(bridged(fun) if is_async(fun) else fun, *args, **options))

    def register_task(self, task: Any, **options: Any) -> Any:
        """As Celery's."""
        return _guarded(super().register_task(task, **options))


def create_celery(
    broker_url: str,
    result_backend: str | None = None,
    runtime_factory: Callable[[], Awaitable[Runtime]] | None = None,
    actors: Iterable[Actor[Any, Any]] = (),
    *,
    name: str = "callboard",
    queues: Iterable[str] = (),
    key_prefix: str = "",
    options: WorkerOptions | None = None,
    **conf: Any,
) -> App:
    """The app that `celery -A … worker|beat|inspect|flower` and stock clients work with.

    `runtime_factory` is awaited on the worker's loop thread, so whatever it opens belongs to that loop. A worker
    serves `queues`, or every queue an actor names. `key_prefix` goes before every key in Redis. `conf` are Celery's
    own settings and win over the defaults here.
    """
    options = options or WorkerOptions()
    if options.signer is not None:
        if not broker_url.startswith(("redis", "sentinel", "unix")) or not options.own_consumer:
            raise ValueError("only the own consumer on Redis checks signatures: leave the signer out")
        sign_tasks(options.signer)
    found = Sentinels.of(broker_url) if is_sentinel(broker_url) else None
    broker = broker_url if found is None else found.celery_url
    app = App(name, broker=broker, backend=result_backend, runtime_factory=runtime_factory, worker_options=options)
    actors = tuple(actors)
    app.conf.update(_defaults(has_results=result_backend is not None))
    app.conf.task_queues = [_queue(queue) for queue in sorted(set(queues) or _queues_of(actors))]
    app.conf.update(conf)
    sentinels = {} if found is None else found.celery_options
    transport = {**_transport(broker_url, key_prefix), **sentinels, **(conf.get("broker_transport_options") or {})}
    app.conf.broker_transport_options = transport
    for actor in actors:
        bind(app, actor)
    return app


def _guarded(task: Any) -> Any:
    """The task; what it does in a thread may be interrupted, and counts for nothing when it comes too late."""
    if not getattr(task, "runs_on_loop", False):
        guard(task)
    return task


def _queues_of(actors: Iterable[Actor[Any, Any]]) -> set[str]:
    return {"default", *(actor.queue for actor in actors)}


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def _defaults(*, has_results: bool) -> dict[str, Any]:
    return {
        "worker_pool": POOL,  # not `-P custom`: that one is imported before the working directory is on the path
        "worker_consumer": CONSUMER,
        "worker_concurrency": 100,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "task_acks_late": True,
        "task_default_queue": "default",
        "task_routes": [route],
        "task_ignore_result": not has_results,
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
    }


def _transport(broker_url: str, key_prefix: str) -> dict[str, Any]:
    if not broker_url.startswith(("redis", "sentinel")):
        return {}
    return {
        "priority_steps": list(PRIORITY_STEPS),
        "sep": SEPARATOR,
        "global_keyprefix": key_prefix,
        "queue_order_strategy": "priority",
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "socket_timeout": 10,
    }
