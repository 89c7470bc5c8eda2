"""What plugs into Celery: the app, the pool, the consumer. The only package that imports Celery and kombu."""

from callboard_workers.celery.app import App, create_celery
from callboard_workers.celery.options import WorkerOptions

__all__ = ["App", "WorkerOptions", "create_celery"]
