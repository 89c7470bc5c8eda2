"""A failed job once more: queued again and its quota reserved again, in one transaction."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from callboard_workers.ledger.inserts import after_commit
from callboard_workers.ledger.json import storable
from callboard_workers.ledger.operations import REQUEUE
from callboard_workers.ledger.schema import messages
from service.core.errors import Conflict
from service.jobs import serializers
from service.jobs.models import jobs
from service.jobs.params import unknown_job
from service.jobs.prepare import check_quota, check_rights, exceeded
from service.jobs.quotas import standing
from service.jobs.schemas import JobOut
from service.jobs.types import job_types
from service.web import Request

FAILED = {"dead", "uncertain", "held"}


async def retry(request: Request, session: AsyncSession, id: UUID) -> JobOut:
    """Queue a failed job again in the caller's transaction; the doorbell rings after the commit.

    Raises NotFound, Conflict for any other state, and what a new job would be refused for.
    """
    row = await _locked(session, request.user.tenant_id, id)
    if row.state not in FAILED:
        raise Conflict(f"The job is {row.status}; only one that failed can be tried again.", code="not-retryable")
    await _check(session, row)
    connection = await session.connection()
    note = storable({"by": request.user.key, "reason": "api"})
    await connection.exec_driver_sql(REQUEUE, ([id], request.user.tenant_id, request.user.key, note))
    await _check_reserved(session, row)
    found = await serializers.doorbell(connection, id)
    if found is not None and found[1] is not None:
        after_commit(session, request.app.state.publisher.ring, [found[1]])
    told = await serializers.one(connection, request.user.tenant_id, id)
    if told is None:
        raise unknown_job()
    return told


async def _locked(session: AsyncSession, tenant_id: UUID, id: UUID) -> Any:
    """Read the job and lock its message: whoever else wants to queue it again waits."""
    statement = (
        sa.select(jobs, messages.c.state)
        .join(messages, messages.c.id == jobs.c.id)
        .where(jobs.c.id == id, jobs.c.tenant_id == tenant_id)
        .with_for_update(of=messages, key_share=True)
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise unknown_job()
    return row


async def _check(session: AsyncSession, row: Any) -> None:
    wanted = job_types().get(row.type)
    if row.organization_id is None or wanted is None:
        return
    stands = await standing(session, row.tenant_id, row.organization_id)
    if stands is not None:
        await check_rights(session, wanted, stands)
        if row.quota == "released":
            check_quota(stands, row.cost)


async def _check_reserved(session: AsyncSession, row: Any) -> None:
    """The trigger reserved whatever the limit: its row is locked now, so this look is the last word."""
    if row.quota != "released":
        return
    stands = await standing(session, row.tenant_id, row.organization_id)
    if stands is not None and stands.used + stands.reserved > stands.job_limit:
        raise exceeded(stands)
