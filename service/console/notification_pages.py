"""Notifications: how many people each reached, and by which channel."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from service.console.pages import page, uuid_or_none
from service.core.ids import notification_uuid as uuid_of
from service.core.ids import unknown_notification
from service.notifications import serializers
from service.notifications.serializers import MailStates
from service.web import Request

LIMIT = 50
STATES = "console.mail_states"


@get("/notifications")
async def listing(request: Request) -> Response[Any]:
    """List notifications, newest first."""
    before = uuid_or_none(request.query_params.get("before"))
    async with request.app.state.engine.connect() as connection:
        found = await serializers.page(
            connection, request.user.tenant_id, request.user.mode, limit=LIMIT + 1, before=before
        )
    more = found[LIMIT - 1].task_id if len(found) > LIMIT else None
    return page(request, "notifications.html", notifications=found[:LIMIT], more=more, before=before)


@get("/notifications/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show a notification with its counts."""
    states: MailStates = request.app.state.runtime.state.setdefault(STATES, MailStates())
    wanted = uuid_of(id)
    async with request.app.state.engine.connect() as connection:
        found = await serializers.one(connection, request.user.tenant_id, request.user.mode, wanted, states)
    if found is None:
        raise unknown_notification()
    return page(request, "notification.html", told=found)


handlers = [listing, look]
