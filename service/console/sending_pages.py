"""What decides whether and how emails leave: suppressed addresses, domains to send from, SMTP servers of the tenant."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath
from sqlalchemy import select, text

from service.console.messages import Question, confirmed
from service.console.pages import ask, page, to, uuid_or_none
from service.console.visiting import form, question
from service.core.errors import NotFound
from service.db.engine import transaction
from service.domains import repository as domains
from service.mail.address_text import canonical
from service.suppressions import parse, repository
from service.suppressions.models import Reason
from service.transports.models import transports
from service.web import Request

LIMIT = 50
REASONS = [reason.value for reason in Reason]
WORDS = {
    "hard_bounce": "Hard bounce: the address does not exist",
    "complaint": "Complaint: marked as spam",
    "unsubscribe": "Unsubscribed by the recipient",
    "manual": "Added by hand",
}
KEPT = text("""
SELECT count(*) FROM (
    SELECT FROM emails WHERE tenant_id = :tenant_id AND mode = :mode AND recipients[1] = :address
        AND status = 'suppressed' LIMIT 1000
) AS kept
""")


@get("/suppressions")
async def suppressions(request: Request) -> Response[str]:
    """List suppressed addresses, newest first; `q` is a whole address or the id of a suppression."""
    asked, user = question(request), request.user
    q, reason, before = asked.get("q", ""), asked.get("reason", ""), uuid_or_none(asked.get("before"))
    filters = {"reason": reason} if reason in REASONS else {}
    id = uuid_or_none(q.removeprefix("su_")) if q.startswith("su_") else None
    if q and id is None:
        filters["address"] = canonical(q)
    async with request.app.state.engine.connect() as connection:
        if id is not None:
            one = await repository.one(connection, user.tenant_id, user.mode, id)
            found = [one] if one else []
        else:
            found = await repository.page(
                connection, user.tenant_id, user.mode, filters, before=before, limit=LIMIT + 1
            )
    more = found[LIMIT - 1].id[3:] if len(found) > LIMIT else None
    return page(
        request, "suppressions.html", suppressions=found[:LIMIT], q=q, reason=reason, reasons=WORDS, more=more,
        before=before,
    )  # fmt: skip


@post("/suppressions/{id:str}/remove", status_code=200)
async def remove(request: Request, id: FromPath[str]) -> Response[Any]:
    """Remove a suppression, once confirmed: new emails to the address are sent again."""
    asked, user, wanted = await form(request), request.user, parse.uuid_of(id)
    async with transaction(request.app.state.sessions) as session:
        found = await repository.one(session, user.tenant_id, user.mode, wanted)
        if found is None:
            raise NotFound("There is no suppression with this id: it may be removed already.")
        if not confirmed(asked):
            values = {"tenant_id": user.tenant_id, "mode": user.mode, "address": found.address}
            kept = (await session.execute(KEPT, values)).scalar_one()
            return ask(request, _question(found, kept))
        await repository.strike(session, user.tenant_id, user.mode, wanted)
    return to("/console/suppressions?done=unsuppressed")


def _question(found: Any, kept: int) -> Question:
    what = f"emails of the category “{found.category}”" if found.category else "all emails"
    words = [f"From now on {what} to {found.address} are sent again."]
    words.append(f"Reason for the suppression: {WORDS[found.reason]}.")
    if found.reason in {Reason.COMPLAINT, Reason.UNSUBSCRIBE}:
        words.append("The recipient asked not to get these emails: remove it only if they ask for them again.")
    if found.reason == Reason.HARD_BOUNCE:
        words.append("If the address still does not exist, the next email suppresses it again.")
    if kept:
        words.append(f"Emails suppressed before stay unsent ({kept:,}); send a copy of those you need.")
    return Question(
        title="Remove this suppression?", words=words, action=f"/console/suppressions/{found.id}/remove",
        label="Remove the suppression", back="/console/suppressions",
    )  # fmt: skip


@get("/domains")
async def list_domains(request: Request) -> Response[str]:
    """List the domains to send from, each with the DNS records that it needs."""
    async with transaction(request.app.state.sessions) as session:
        found = await domains.all_of(session, request.user.tenant_id)
    return page(request, "domains.html", domains=found)


@get("/transports")
async def list_transports(request: Request) -> Response[str]:
    """List the tenant's own SMTP servers; without one its emails leave through the service's."""
    statement = select(transports).where(transports.c.tenant_id == request.user.tenant_id)
    async with request.app.state.engine.connect() as connection:
        found = (await connection.execute(statement.order_by(transports.c.id.desc()).limit(LIMIT))).all()
    settings = request.app.state.settings
    return page(request, "transports.html", transports=found, house=f"{settings.smtp_host}:{settings.smtp_port}")


handlers = [suppressions, remove, list_domains, list_transports]
