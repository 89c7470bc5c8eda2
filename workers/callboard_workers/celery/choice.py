"""Which consumer a worker gets: ours where the broker is Redis, Celery's own everywhere else."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer as StockConsumer

from callboard_workers.celery.broker_url import redis_url
from callboard_workers.celery.consumer import Consumer


def make_consumer(*args: Any, app: Any, pool: Any, **kwargs: Any) -> Any:
    """What the setting `worker_consumer` names. Celery's consumer with our pool gives Celery's guarantees."""
    ours = app.worker_options.own_consumer and redis_url(app) is not None and hasattr(pool, "front")
    return (Consumer if ours else StockConsumer)(*args, app=app, pool=pool, **kwargs)
