"""`POST /v1/inbound/bounces`: what mail servers and providers report of mails that were sent."""

import asyncio
from functools import partial

from litestar import Response, Router, post
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.ids import email_id
from service.emails.reports import examples as show
from service.emails.reports.ingest import Told, ingest
from service.emails.reports.parse import raw_reports, reports_of
from service.emails.reports.report import Report
from service.emails.reports.schemas import InboundOut, InboundRequest, ReportOut
from service.emails.reports.tags import Tags
from service.web import Answer, Request, accepts, examples, large_body, once, require
from service.web.auth import plain_header
from service.web.json_body import decode

RAW = "message/rfc822"


@post(
    "/inbound/bounces",
    guards=[require("inbound:write")],
    status_code=200,
    summary="Report a bounce, a complaint or a delivery",
    opt=examples(body=show.REQUEST, answer=show.ANSWER)
    | accepts({"application/json": InboundRequest, RAW: str})
    | large_body(),
)
async def report(request: Request) -> Response[InboundOut]:
    """Take in a report: in words, or a delivery status notification (RFC 3464) or abuse report (RFC 5965) as it came.

    The email moves from `sent` to `delivered`, `bounced` or `complained`, and an unknown outcome is resolved. A hard
    bounce and a complaint suppress the address. A report as it came does so only where it carries our MAC for its
    recipient (`trust`); otherwise it is recorded among the events and changes nothing. The same report again (by
    `event_id`, or by what it says) changes nothing.
    """
    reports, tags = await _reports(request), Tags.of(request.app.state.settings)

    async def work(session: AsyncSession) -> Answer:
        caller, by = request.user, f"api:{request.user.key}"
        told = [await ingest(session, caller.tenant_id, each, mode=caller.mode, by=by, tags=tags) for each in reports]
        return Answer(200, InboundOut(items=list(map(_told, reports, told))))

    return await once(request, work)


async def _reports(request: Request) -> list[Report]:
    body = await request.body()
    media = plain_header(request, b"content-type").partition(";")[0].strip().lower()
    if media == RAW:
        return await asyncio.to_thread(raw_reports, body)
    request.check_media()
    return await asyncio.to_thread(reports_of, await request.decoded(partial(decode, kind=InboundRequest)))


def _told(report: Report, told: Told) -> ReportOut:
    return ReportOut(
        event=report.action,
        outcome=told.outcome,
        email_id=email_id(told.email_id) if told.email_id else None,
        recipient=told.recipient,
        suppressed=told.suppressed,
        trust=told.trust,
    )


router = Router("/v1", route_handlers=[report], tags=["Bounces"])
