"""`/v1/senders`: the domains that a tenant sends from, and the keys that sign their mail."""

import asyncio
import re
from uuid import UUID

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from service.core.encryption import Sealer
from service.core.errors import Conflict, Fault, Invalid, NotFound
from service.domains import examples as show
from service.domains import keys, repository
from service.domains.dns_records import Dns
from service.domains.schemas import SenderList, SenderOut, SenderRequest
from service.domains.verified import Domains
from service.mail.addresses import AddressRefused, parse_address
from service.web import Answer, Request, examples, once, require, transaction

_ID = re.compile(r"sd_([0-9a-f]{32})")


@post(
    "/senders",
    guards=[require("senders:write")],
    status_code=201,
    summary="Add a domain to send from",
    opt=examples(body=show.REQUEST, answer=show.SENDER),
)
async def add(request: Request, data: JSONBody[SenderRequest]) -> Response[SenderOut]:
    """Make a key for a domain and say which DNS records to publish; then ask for `…/verify`."""
    domain, tenant_id = _domain(data.domain), request.user.tenant_id
    sealer, id = Sealer.of(request.app.state.settings), uuid7()
    pair = await asyncio.to_thread(keys.make)
    values = {
        "id": id,
        "tenant_id": tenant_id,
        "domain": domain,
        "token": keys.token(),
        "selector": f"cb{id.hex[-8:]}",
        "public_key": pair.public,
        "private_key": sealer.seal(pair.private, keys.about(id)),
    }

    async def work(session: AsyncSession) -> Answer:
        if await repository.count(session, tenant_id) >= repository.MOST:
            raise Conflict(f"There are {repository.MOST} senders already; delete one first.", code="too-many-senders")
        try:
            made = await repository.add(session, values)
        except IntegrityError:
            raise Conflict(f"There is a sender {domain} already; see GET /v1/senders.", code="sender-exists") from None
        return Answer(201, made, {"Location": f"/v1/senders/{made.id}"})

    return await once(request, work)


@get("/senders", guards=[require("senders:read")], summary="List the domains", opt=examples(answer=show.LIST))
async def listing(request: Request) -> SenderList:
    """List every domain, newest first, with the records that it needs."""
    async with transaction(request) as session:
        return SenderList(items=await repository.all_of(session, request.user.tenant_id))


@get(
    "/senders/{sender_id:str}",
    guards=[require("senders:read")],
    summary="Look at a domain",
    opt=examples(answer=show.SENDER),
)
async def look(request: Request, sender_id: FromPath[str]) -> SenderOut:
    """Return one domain with the records that it needs."""
    async with transaction(request) as session:
        return _there(await repository.one(session, request.user.tenant_id, _uuid(sender_id)))


@post(
    "/senders/{sender_id:str}/verify",
    guards=[require("senders:write")],
    status_code=200,
    summary="Look for the DNS records of a domain",
    opt=examples(answer=show.VERIFIED),
)
async def verify(request: Request, sender_id: FromPath[str]) -> SenderOut:
    """Look the records up now; `records` says what was found. Mail of a verified domain is signed from then on.

    A domain whose records are gone is not verified any more.
    """
    id, tenant_id = _uuid(sender_id), request.user.tenant_id
    async with transaction(request) as session:
        known = _there(await repository.one(session, tenant_id, id))
    dns = Dns.of(request.app.state.settings)
    looked = await asyncio.gather(*map(dns.look, known.records))
    async with transaction(request) as session:
        found = _there(await repository.checked(session, tenant_id, id, looked))
    Domains.of_runtime(request.app.state.runtime).forget(tenant_id)
    return found


@delete("/senders/{sender_id:str}", guards=[require("senders:write")], summary="Delete a domain")
async def remove(request: Request, sender_id: FromPath[str]) -> None:
    """Delete a domain with its key. Mail from it that has not left yet leaves without a signature."""
    async with transaction(request) as session:
        if not await repository.remove(session, request.user.tenant_id, _uuid(sender_id)):
            raise _unknown()
    Domains.of_runtime(request.app.state.runtime).forget(request.user.tenant_id)


def _domain(text: str) -> str:
    """Read a domain as mail addresses have it: A-labels, small letters. Raises Invalid."""
    try:
        return parse_address(f"x@{text}").addr_spec.partition("@")[2].lower()
    except AddressRefused as error:
        raise Invalid([Fault("/domain", f"{fault.message}.") for fault in error.faults]) from None


def _uuid(id: str) -> UUID:
    found = _ID.fullmatch(id)
    if found is None:
        raise _unknown()
    return UUID(hex=found[1])


def _there(found: SenderOut | None) -> SenderOut:
    if found is None:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("There is no such sender.", code="unknown-sender")


routers = [Router("/v1", route_handlers=[add, listing, look, verify, remove], tags=["Senders"])]
