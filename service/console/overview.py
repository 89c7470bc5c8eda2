"""The first page: is everything well, what waits, what runs, what wants a person."""

import asyncio

from litestar import Response, get

from service.console import dead_pages, figures
from service.console.pages import page
from service.tasks.queue_stats import QueueReport, Queues
from service.web import Request

SERVERS = "console.servers"


@get("/")
async def overview(request: Request) -> Response[str]:
    """Show the overview."""
    state, tenant = request.app.state, request.user.tenant_id
    servers: figures.Servers = state.runtime.state.setdefault(SERVERS, figures.Servers())
    health, queues = await asyncio.gather(servers.look(state), _queues(request))
    async with state.engine.connect() as connection:
        mails, wrong = await figures.curves(connection, tenant)
        held = await figures.held(connection, tenant)
        workers = await figures.workers(connection, state.redis, state.settings.redis_key_prefix)
        letters = await dead_pages.latest(connection, tenant, 5)
    busy = [each for each in queues if each.due or each.scheduled or each.running or each.arrivals]
    return page(
        request, "overview.html", health=health, queues=busy, mails=mails, wrong=wrong, held=held,
        most=figures.MOST_HELD, workers=workers, letters=letters, letter_place=dead_pages.place,
        waiting=sum(each.due for each in queues), later=sum(each.scheduled for each in queues),
        running=sum(each.running for each in queues),
        oldest=max((each.oldest_age or 0.0 for each in queues), default=0.0),
    )  # fmt: skip


async def _queues(request: Request) -> list[QueueReport]:
    """Count the work of the tenant that the page shows, whatever else the key may see."""
    state = request.app.state
    known: Queues | None = state.runtime.state.get("queues")
    if known is None:
        known = state.runtime.state["queues"] = Queues(state.engine, state.redis, state.settings.redis_key_prefix)
    return await known.report(request.user.tenant_id)


handlers = [overview]
