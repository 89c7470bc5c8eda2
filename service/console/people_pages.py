"""The users of the tenant's app, and the API keys of the tenant."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.access.models import ApiKey
from service.console.pages import page, uuid_or_none
from service.console.visiting import question
from service.core.errors import NotFound
from service.mail.address_text import canonical
from service.suppressions import repository
from service.users import lookup
from service.web import Request

LIMIT = 50
RELATED = 100  # topics, organizations and preferences that are shown of a user

PAGE = text("""
SELECT id, email, locale, timezone, created_at FROM users
WHERE tenant_id = :tenant_id AND mode = :mode AND id > :after ORDER BY id LIMIT :limit
""")
FIND = text("""
SELECT id, email, locale, timezone, created_at FROM users WHERE tenant_id = :tenant_id AND mode = :mode AND id = :q
UNION SELECT id, email, locale, timezone, created_at FROM users
WHERE tenant_id = :tenant_id AND mode = :mode AND lower(address) = :address ORDER BY id LIMIT :limit
""")
TOPICS = text("SELECT topic FROM followers WHERE user_no = :no AND tenant_id = :tenant_id ORDER BY topic LIMIT :most")
ORGANIZATIONS = text("""
SELECT organization_id FROM members WHERE user_no = :no AND tenant_id = :tenant_id ORDER BY organization_id LIMIT :most
""")
PREFERENCES = text("""
SELECT category, channel, pace FROM preferences WHERE user_no = :no AND tenant_id = :tenant_id
ORDER BY category, channel LIMIT :most
""")


@get("/users")
async def list_users(request: Request) -> Response[str]:
    """List users by id; `q` is the id of one or a whole address."""
    asked = question(request)
    q, after = asked.get("q", ""), asked.get("before", "")
    values = {"tenant_id": request.user.tenant_id, "mode": request.user.mode, "limit": LIMIT + 1}
    async with request.app.state.engine.connect() as connection:
        if q:
            found = (await connection.execute(FIND, {**values, "q": q, "address": canonical(q)})).all()
        else:
            found = (await connection.execute(PAGE, {**values, "after": after})).all()
    more = found[LIMIT - 1].id if len(found) > LIMIT else None
    return page(request, "users.html", users=found[:LIMIT], q=q, more=more, before=after)


@get("/users/{id:path}")
async def get_user(request: Request, id: FromPath[str]) -> Response[str]:
    """Show a user: address, suppressions, topics, organizations and preferences."""
    tenant, mode = request.user.tenant_id, request.user.mode
    async with request.app.state.engine.connect() as connection:
        person = await lookup.find(connection, tenant, mode, id.removeprefix("/"))
        if person is None:
            raise NotFound("There is no user with this id: it may belong to another tenant, or be deleted by now.")
        where = {"no": person.no, "tenant_id": tenant, "most": RELATED}
        related = {
            "topics": list((await connection.execute(TOPICS, where)).scalars()),
            "organizations": list((await connection.execute(ORGANIZATIONS, where)).scalars()),
            "preferences": (await connection.execute(PREFERENCES, where)).all(),
            "suppressions": await _suppressions(connection, request, person.address),
        }
    return page(request, "user.html", user=person, **related)


async def _suppressions(connection: AsyncConnection, request: Request, address: str | None) -> list[Any]:
    """The suppressions of an address, for a key that may read them."""
    if address is None or not request.user.may("suppressions:read"):
        return []
    where = {"address": canonical(address)}
    return list(
        await repository.page(connection, request.user.tenant_id, request.user.mode, where, before=None, limit=RELATED)
    )


@get("/keys")
async def list_keys(request: Request) -> Response[str]:
    """List the tenant's API keys, newest first; `q` is the id of one. A key's text is never shown."""
    asked = question(request)
    q, before = asked.get("q", ""), uuid_or_none(asked.get("before"))
    columns = (ApiKey.id, ApiKey.name, ApiKey.prefix, ApiKey.scopes, ApiKey.mode, ApiKey.created_at)
    statement = select(*columns, ApiKey.expires_at, ApiKey.revoked_at, ApiKey.last_used_at)
    statement = statement.where(ApiKey.tenant_id == request.user.tenant_id)
    if (id := uuid_or_none(q.removeprefix("ak_"))) is not None:
        statement = statement.where(ApiKey.id == id)
    if before is not None:
        statement = statement.where(ApiKey.id < before)
    async with request.app.state.engine.connect() as connection:
        found = (await connection.execute(statement.order_by(ApiKey.id.desc()).limit(LIMIT + 1))).all()
    more = str(found[LIMIT - 1].id) if len(found) > LIMIT else None
    return page(request, "keys.html", keys=found[:LIMIT], more=more, before=before)


handlers = [list_users, get_user, list_keys]
