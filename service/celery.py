"""The worker's composition root: `celery -A service worker|beat|inspect|flower` finds `app` here."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from celery import signals

from callboard_workers.actors.actor import registry
from callboard_workers.celery import App, WorkerOptions, create_celery
from callboard_workers.middleware import defaults
from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from service import environment, slices
from service.core import logging as logs
from service.db import engine as db
from service.domains.sender_policy import house_of
from service.notifications.compatibility import check_tenant
from service.settings import Settings, SettingsError

CHATTY = ("celery.app.trace", "celery.worker.strategy", "kombu", "amqp")
"""Loggers that say again what the one line of an attempt says."""

PURGE = """\
`celery purge` deletes doorbells and direct messages in Redis. Durable tasks stay in Postgres and run all the same,
within seconds. To cancel them: callboard purge QUEUE --cancel"""


def make_app(settings: Settings) -> App:
    """Make the Celery app over every slice's actors; what needs a loop is opened on the worker's loop thread."""
    modules = slices.import_actors()

    async def open_runtime() -> Runtime:
        house_of(settings)
        engine = db.create_engine(settings, application="callboard-worker")
        try:
            await check_tenant(engine, settings.celery_tenant)
        except SettingsError:
            await engine.dispose()
            raise
        publisher = Publisher(settings.redis_url, key_prefix=settings.redis_key_prefix, signer=settings.signer())
        runtime = Runtime(
            engine,
            publisher,
            middleware=defaults(tracing=settings.tracing),
            lease=settings.worker_lease,
            retention=settings.retention,
        )
        runtime.state["settings"] = settings
        runtime.resources.push_async_callback(engine.dispose)
        for warm in (module.warm for module in modules if hasattr(module, "warm")):
            await asyncio.to_thread(warm)
        return runtime

    return create_celery(
        settings.redis_url,
        settings.result_backend or None,
        open_runtime,
        registry,
        queues=settings.queues,
        key_prefix=settings.redis_key_prefix,
        options=WorkerOptions(
            lease=settings.worker_lease,
            grace=settings.worker_grace,
            fenced_timeout=settings.worker_fenced_timeout,
            health_port=settings.worker_health_port or None,
            signer=settings.signer(),
            control_verbs=None if "*" in settings.worker_control_verbs else frozenset(settings.worker_control_verbs),
        ),
        worker_concurrency=settings.worker_concurrency,
    )


def read_settings() -> Settings:
    """Read the settings of a Celery command: of the environment, `.env`, and the `callboard up` that runs here.

    What is wrong ends the process with one line for each fault.
    """
    try:
        environ = environment.read(os.environ)
        data = Path(environ.get("CALLBOARD_DATA") or ".callboard")
        return Settings.from_env(environment.with_servers(environ, data, secret=True))
    except ValueError as error:
        raise SystemExit(f"Error: {error}") from None


SETTINGS = read_settings()


@signals.setup_logging.connect
def configure_logs(**_: Any) -> None:
    """Takes the place of Celery's own logging."""
    logs.shield()
    component = next((word for word in sys.argv[1:] if word in ("worker", "beat")), "celery")
    logs.configure(SETTINGS, component)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


app = make_app(SETTINGS)

if "purge" in sys.argv:  # a command of Celery's, which says nothing of rows
    click.echo(PURGE, err=True)
