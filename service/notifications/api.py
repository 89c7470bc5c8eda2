"""`/v1/notifications`: tell people something, and see whom it reached."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody

from service.core.ids import notification_uuid, unknown_notification
from service.emails.resources import Office
from service.notifications import email, serializers
from service.notifications import examples as show
from service.notifications.deliver import message
from service.notifications.models import Status
from service.notifications.prepare import COLUMNS, Order, order
from service.notifications.schemas import NotificationOut, NotificationPage, NotificationRequest
from service.notifications.serializers import MailStates
from service.notifications.timeline import story
from service.web import (
    Accepted,
    Answer,
    Cursor,
    Limit,
    Outcome,
    Pager,
    Request,
    Submission,
    Table,
    accept,
    examples,
    preferred_wait,
    require,
    wait_for,
)

__all__ = ["routers", "story"]

TABLE = Table("notifications", COLUMNS)
STATES = "notifications.mail_states"


@post(
    "/notifications",
    guards=[require("notifications:send")],
    status_code=202,
    summary="Notify people",
    opt=examples(body=show.REQUEST, answer=show.QUEUED),
)
async def notify(request: Request, data: JSONBody[NotificationRequest]) -> Response[NotificationOut]:
    """Accept a notification. 202 means that it is stored, and that each person it reaches gets it once.

    Somebody who is reached by several routes (named, by topics, as a member) gets one. With a `dedup_key`, somebody
    who was told under the same key within `dedup_window` seconds gets none. With `Prefer: wait=20` the answer is held
    until all were served (200), or the wait is over (202).
    """
    caller = request.user
    made = order(data, tenant_id=caller.tenant_id, mode=caller.mode, request_id=request.request_id)
    if "email" in made.channels:
        await email.check(made.told(), Office.of(request.app.state.runtime).desk(caller.tenant_id))
    got = await accept(request, TABLE, _submission(made))
    seconds = preferred_wait(request)
    if not seconds or got.answer.status != 202:
        return got.answer.response(replayed=got.outcome is Outcome.REPLAYED)
    return await _waited(request, got, seconds)


@get(
    "/notifications",
    guards=[require("notifications:read")],
    summary="List notifications, newest first",
    opt=examples(answer=show.PAGE),
)
async def listing(request: Request, *, limit: Limit = None, cursor: Cursor = None) -> NotificationPage:
    """List this tenant's notifications."""
    pager = Pager(request, limit, cursor)
    before = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        found = await serializers.page(
            connection, request.user.tenant_id, request.user.mode, limit=pager.fetch, before=before
        )
    page = pager.cut(found, key=lambda told: [told.task_id])
    return NotificationPage(items=page.items, next_cursor=page.next_cursor)


@get(
    "/notifications/{notification_id:str}",
    guards=[require("notifications:read")],
    summary="Look at a notification",
    opt=examples(answer=show.COMPLETED),
)
async def look(request: Request, notification_id: FromPath[str]) -> NotificationOut:
    """Return a notification with its counts as of now."""
    return await _look(request, notification_id)()


def _submission(made: Order) -> Submission:
    told = serializers.accepted(made)
    answer = Answer(202, told, {"Location": f"/v1/notifications/{told.id}"})
    return Submission(records=[made.row()], messages=[(made.id, message(made))], answer=answer)


def _look(request: Request, notification_id: str) -> Callable[[], Awaitable[NotificationOut]]:
    id = notification_uuid(notification_id)
    states: MailStates = request.app.state.runtime.state.setdefault(STATES, MailStates())

    async def look_again() -> NotificationOut:
        async with request.app.state.engine.connect() as connection:
            found = await serializers.one(connection, request.user.tenant_id, request.user.mode, id, states)
        if found is None:
            raise unknown_notification()
        return found

    return look_again


async def _waited(request: Request, got: Accepted, seconds: float) -> Response[NotificationOut]:
    location = got.answer.headers["Location"]
    told, done = await wait_for(_look(request, location.rpartition("/")[2]), _is_over, seconds)
    headers = {**got.answer.headers, **({"Idempotency-Replayed": "true"} if got.outcome is Outcome.REPLAYED else {})}
    return Response(told, status_code=200 if done else 202, headers=headers)


def _is_over(told: NotificationOut) -> bool:
    return Status(told.status).terminal


routers = [Router("/v1", route_handlers=[notify, listing, look], tags=["Notifications"])]
