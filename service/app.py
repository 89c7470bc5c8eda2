"""The HTTP application: `create_app()` puts the slices, the plumbing and the edge together."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog
from litestar import Litestar, Response, Router
from litestar import Request as LitestarRequest
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, ExceptionHandlersMap
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from callboard_workers.middleware import defaults
from callboard_workers.redis import address
from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from service import slices
from service.access.keys import Keyring
from service.console.api import show_error
from service.core import logging
from service.db import engine as db
from service.db import migrate
from service.db.tenancy import API
from service.domains.sender_policy import house_of
from service.health.checks import Checks
from service.settings import Settings
from service.web import health, landing, openapi, problem_details
from service.web.auth import Doorman, admit
from service.web.fast_path import Express
from service.web.limits import Limiter
from service.web.metrics import FindingMetrics, HttpMetrics, LedgerMetrics
from service.web.middleware import Edge
from service.web.otel import Traced
from service.web.request import Request

log = structlog.get_logger("service.app")


def respond(request: LitestarRequest[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answer an error that no router caught: below `/console` as a page, elsewhere as a problem."""
    answer = show_error if request.scope["path"].startswith("/console/") else problem_details.respond
    return answer(request, error)


HANDLERS: ExceptionHandlersMap = {Exception: respond, HTTPException: respond, 500: respond}

REDIS_PATIENCE = 0.5  # seconds that a route which is not about accepting waits for a Redis that says nothing
SILENCE = 0.1  # seconds without a word of Postgres, then a connection is asked before it is used


def serve() -> ASGIApp:
    """Make the application of a server process: settings from the environment, logs set up. For granian's factory."""
    settings = Settings.from_env()
    logging.configure(settings, "api")
    return create_app(settings, settle=True)


def create_app(settings: Settings, routers: Sequence[Router] | None = None, *, settle: bool = False) -> ASGIApp:
    """Make the ASGI application; its lifespan opens everything on the loop that runs it.

    `routers` are those of the slices, unless others are given. `settle`: this is all that the process does, so the
    garbage collector is set up for it.
    """
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    state = State(
        {
            "settings": settings,
            "registry": registry,
            "ledger_metrics": LedgerMetrics(registry),
            "finding_metrics": FindingMetrics(registry),
            "settle": settle,
        }
    )
    app = Litestar(
        route_handlers=[landing.router, health.router, *(slices.api_routers() if routers is None else routers)],
        request_class=Request,
        request_max_body_size=None,  # Request.body counts as it reads
        exception_handlers=HANDLERS,
        openapi_config=openapi.config(settings.public_url),
        plugins=[Doorman()],
        before_request=admit,
        state=state,
        lifespan=[lifespan],
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    inner = Traced(Express(app)) if settings.tracing else Express(app)
    return Edge(inner, HttpMetrics(registry))


@contextlib.asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Open the engine, the publisher and the runtime on the running loop; close them in the other order."""
    state, settings = app.state, app.state.settings
    house_of(settings)  # else every mail that names no sender would be refused, one by one
    slices.import_actors()
    async with contextlib.AsyncExitStack() as stack:
        engine = db.create_engine(
            settings,
            application="callboard-api",
            pool_timeout=settings.db_pool_timeout,
            statement_timeout=settings.db_statement_timeout,
            ping_after=SILENCE,
            role=API,
        )
        stack.push_async_callback(engine.dispose)
        publisher = Publisher(settings.redis_url, key_prefix=settings.redis_key_prefix, signer=settings.signer())
        runtime = Runtime(engine, publisher, middleware=defaults(tracing=settings.tracing))
        runtime.state["settings"] = settings
        await runtime.start()
        stack.push_async_callback(runtime.stop)
        state.redis = address.async_client(
            settings.redis_url,
            socket_timeout=REDIS_PATIENCE,
            socket_connect_timeout=REDIS_PATIENCE,
            retry=Retry(NoBackoff(), 1),  # once: a connection that Redis closed while it was idle
        )
        stack.push_async_callback(state.redis.aclose)
        state.engine, state.sessions = engine, db.sessions(engine)
        state.publisher, state.runtime = publisher, runtime
        state.keyring = Keyring(engine, settings.db_accept_timeout, settings.db_connect_timeout)
        state.limiter = limiter = Limiter.of(settings, state.registry)
        if limiter is not None:
            stack.push_async_callback(limiter.close)
        state.schema_head = migrate.head()
        state.checks = Checks(
            engine, state.redis, state.schema_head, prefix=settings.redis_key_prefix, data=settings.data
        )
        state.stories = slices.stories()
        state.intakes = {}
        stack.push_async_callback(_close_intakes, state)
        stack.push_async_callback(_stop, asyncio.create_task(state.keyring.tend(), name="access-upkeep"))
        stack.push_async_callback(_stop, asyncio.create_task(state.keyring.guard(), name="access-guard"))
        await asyncio.to_thread(slices.warm)
        if state.settle:
            _settle_memory()
        log.info("api_started")
        yield
        log.info("api_stopping")
    logging.flush()


async def _close_intakes(state: State) -> None:
    await asyncio.gather(*(intake.close() for intake in state.intakes.values()))


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _settle_memory() -> None:
    """Keep the collector away from what lives as long as the process: it costs the slowest requests most."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
