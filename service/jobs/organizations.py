"""`/v1/organizations/{id}`: what an organization may do, and what is left of its month."""

from uuid import UUID

from litestar import get, put
from litestar.params import FromPath, JSONBody
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.errors import Fault, Invalid, NotFound
from service.jobs import examples as show
from service.jobs.models import organizations, plans
from service.jobs.params import organization_id as read_id
from service.jobs.quotas import standing
from service.jobs.schemas import OrganizationOut, OrganizationRequest, QuotaOut
from service.web import Request, examples, require, transaction


@put(
    "/organizations/{organization_id:str}",
    guards=[require("organizations:write")],
    summary="Set what an organization may do",
    opt=examples(body=show.ORGANIZATION_REQUEST, answer=show.ORGANIZATION),
)
async def put_organization(
    request: Request, organization_id: FromPath[str], data: JSONBody[OrganizationRequest]
) -> OrganizationOut:
    """Make an organization or change it: its plan, its trust score, and a limit of its own if it has one.

    The id is the caller's own. What is not given goes back to its default. A job under way is not affected.
    """
    wanted = read_id(organization_id)
    async with transaction(request) as session:
        await _check_plan(session, data.plan)
        values = {"plan": data.plan, "trust_score": data.trust_score, "job_limit": data.job_limit}
        statement = insert(organizations).values(tenant_id=request.user.tenant_id, id=wanted, **values)
        changed = {**values, "updated_at": func.clock_timestamp()}
        await session.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=changed))
        return await _one(session, request.user.tenant_id, wanted)


@get(
    "/organizations/{organization_id:str}",
    guards=[require("organizations:read")],
    summary="Look at an organization",
    opt=examples(answer=show.ORGANIZATION),
)
async def look(request: Request, organization_id: FromPath[str]) -> OrganizationOut:
    """Return an organization's plan, trust score and limit."""
    async with transaction(request) as session:
        return await _one(session, request.user.tenant_id, organization_id)


@get(
    "/organizations/{organization_id:str}/quotas",
    guards=[require("organizations:read")],
    summary="What is left of the month",
    opt=examples(answer=show.QUOTA),
)
async def quotas(request: Request, organization_id: FromPath[str]) -> QuotaOut:
    """Return this month's quota: jobs that completed (`used`), jobs under way (`reserved`), and when it begins anew.

    A job that fails, is canceled or expires takes nothing.
    """
    async with request.app.state.engine.connect() as connection:
        found = await standing(connection, request.user.tenant_id, organization_id)
    if found is None:
        raise unknown_organization()
    return QuotaOut(
        organization_id=organization_id,
        plan=found.plan,
        period=found.period,
        limit=found.job_limit,
        used=found.used,
        reserved=found.reserved,
        remaining=found.left,
        resets_at=found.resets_at,
    )


def unknown_organization() -> NotFound:
    """Make the 404 of an organization that is not there."""
    return NotFound("There is no such organization: PUT it first.", code="unknown-organization")


async def _check_plan(session: AsyncSession, plan: str) -> None:
    known = (await session.execute(select(plans.c.key).order_by(plans.c.rank))).scalars().all()
    if plan not in known:
        raise Invalid([Fault("/plan", f"There is no such plan; there are {', '.join(known)}.")])


async def _one(session: AsyncSession, tenant_id: UUID, id: str) -> OrganizationOut:
    statement = select(organizations).where(organizations.c.tenant_id == tenant_id, organizations.c.id == id)
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise unknown_organization()
    return OrganizationOut(
        id=row.id,
        plan=row.plan,
        trust_score=row.trust_score,
        job_limit=row.job_limit,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
