"""`/v1/transports`: a tenant's own mail servers, added, tried, deleted."""

from typing import Any
from uuid import UUID

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy import Row, func, insert, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from service.core.encryption import Sealer
from service.core.errors import Conflict, NotFound
from service.domains.sender_policy import house_of
from service.smtp.probe import IMPATIENT
from service.transports import examples as show
from service.transports.models import transport_id, transports
from service.transports.parse import checked, uuid_of
from service.transports.pools import Relays, about, guard_of
from service.transports.probe import probe
from service.transports.schemas import ProbeOut, TransportList, TransportOut, TransportRequest
from service.web import Answer, Request, examples, once, require, transaction

MOST = 20
"""Transports of one tenant."""


@post(
    "/transports",
    guards=[require("transports:write")],
    status_code=201,
    summary="Add a mail server",
    opt=examples(body=show.REQUEST, answer=show.TRANSPORT),
)
async def add(request: Request, data: JSONBody[TransportRequest]) -> Response[TransportOut]:
    """Add a mail server of your own. From then on mail of its `domains` leaves by it, whatever was accepted before.

    The password is stored sealed and never told again. To change a server, add another and delete this one.
    """
    settings, tenant_id, id = request.app.state.settings, request.user.tenant_id, uuid7()
    guard = guard_of(settings)
    try:
        domains = await checked(data, guard)
    finally:
        guard.close()
    sealed = None if data.password is None else Sealer.of(settings).seal(data.password.encode(), about(id))
    names = ("name", "host", "port", "tls", "verify", "username", "pool_size")
    values = {name: getattr(data, name) for name in names}
    values |= {"id": id, "tenant_id": tenant_id, "password": sealed, "domains": domains}

    async def work(session: AsyncSession) -> Answer:
        if await _count(session, tenant_id) >= MOST:
            raise Conflict(f"There are {MOST} transports already; delete one first.", code="too-many-transports")
        try:
            row = (await session.execute(insert(transports).values(values).returning(transports))).one()
        except IntegrityError:
            raise Conflict("There is a transport of this name already.", code="transport-exists") from None
        return Answer(201, _told(row), {"Location": f"/v1/transports/{transport_id(id)}"})

    return await once(request, work)


@get(
    "/transports", guards=[require("transports:read")], summary="List the mail servers", opt=examples(answer=show.LIST)
)
async def listing(request: Request) -> TransportList:
    """List every mail server of your own, newest first; none means that mail leaves by the service's."""
    statement = select(transports).where(transports.c.tenant_id == request.user.tenant_id)
    async with transaction(request) as session:
        rows = await session.execute(statement.order_by(transports.c.id.desc()).limit(MOST))
        return TransportList(items=list(map(_told, rows)))


@get(
    "/transports/{transport_id:str}",
    guards=[require("transports:read")],
    summary="Look at a mail server",
    opt=examples(answer=show.TRANSPORT),
)
async def look(request: Request, transport_id: FromPath[str]) -> TransportOut:
    """Return one mail server; never its password."""
    return await _found(request, transport_id)


@post(
    "/transports/{transport_id:str}/probe",
    guards=[require("transports:write")],
    status_code=200,
    summary="Try a mail server",
    opt=examples(answer=show.PROBE),
)
async def test(request: Request, transport_id: FromPath[str]) -> ProbeOut:
    """Walk the whole way to the server, up to `MAIL` and `RSET`: each step, its seconds, and how to mend it.

    Nothing is sent. This is what `callboard doctor` does for the service's own mail server.
    """
    await _found(request, transport_id)
    state = request.app.state
    relays = Relays.of(state.engine, state.settings, IMPATIENT)
    try:
        return await probe(relays, uuid_of(transport_id), house_of(state.settings).sender.addr_spec)
    finally:
        await relays.close()


@delete("/transports/{transport_id:str}", guards=[require("transports:write")], summary="Delete a mail server")
async def remove(request: Request, transport_id: FromPath[str]) -> None:
    """Delete a mail server with its password. Mail that has not left yet leaves by the service's."""
    gone = delete_rows(transports).where(*_of(request.user.tenant_id, uuid_of(transport_id)))
    async with transaction(request) as session:
        if (await session.execute(gone.returning(transports.c.id))).one_or_none() is None:
            raise _unknown()


async def _found(request: Request, id: str) -> TransportOut:
    statement = select(transports).where(*_of(request.user.tenant_id, uuid_of(id)))
    async with transaction(request) as session:
        row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise _unknown()
    return _told(row)


async def _count(session: AsyncSession, tenant_id: UUID) -> int:
    found = select(func.count()).select_from(transports).where(transports.c.tenant_id == tenant_id)
    number: int = (await session.execute(found)).scalar_one()
    return number


def _of(tenant_id: UUID, id: UUID) -> tuple[Any, ...]:
    return transports.c.tenant_id == tenant_id, transports.c.id == id


def _told(row: Row[Any]) -> TransportOut:
    names = ("name", "host", "port", "tls", "verify", "username", "domains", "pool_size", "created_at")
    told = {name: getattr(row, name) for name in names}
    return TransportOut(id=transport_id(row.id), has_password=row.password is not None, **told)


def _unknown() -> NotFound:
    return NotFound("There is no such transport.", code="unknown-transport")


routers = [Router("/v1", route_handlers=[add, listing, look, test, remove], tags=["Transports"])]
