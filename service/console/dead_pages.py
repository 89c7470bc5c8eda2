"""Dead letters: what is out of attempts or in doubt, by actor and error; queued again by choice."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.console.pages import page, to, uuid_or_none
from service.console.visiting import form, question
from service.tasks.reading import dead_letters
from service.web import Request

LIMIT = 50
MOST = 1_000  # dead letters that one press of a button queues again

GROUPS = text("""
SELECT actor, state, coalesce(error ->> 'type', 'unknown') AS error, count(*) AS letters, max(finished_at) AS latest
FROM messages WHERE state IN ('dead', 'uncertain', 'held') AND tenant_id = :tenant_id
GROUP BY 1, 2, 3 ORDER BY letters DESC LIMIT 50
""")
OF_GROUP = text("""
SELECT id FROM messages
WHERE state IN ('dead', 'uncertain', 'held') AND state = :state AND tenant_id = :tenant_id AND actor = :actor
    AND coalesce(error ->> 'type', 'unknown') = :error
ORDER BY id LIMIT :most
""")


@get("/dead-letters")
async def listing(request: Request) -> Response[str]:
    """List dead letters, grouped and one by one."""
    asked, tenant = question(request), request.user.tenant_id
    actor, error, state = (asked.get(name) or None for name in ("actor", "error", "state"))
    before = uuid_or_none(asked.get("before"))
    async with request.app.state.engine.connect() as connection:
        groups = (await connection.execute(GROUPS, {"tenant_id": tenant})).mappings().all()
        found = await dead_letters(
            connection, tenant, actor=actor, error=error, state=state, after=before, limit=LIMIT + 1
        )
    more = str(found[LIMIT - 1].id) if len(found) > LIMIT else None
    return page(
        request, "dead_letters.html", groups=groups, letters=found[:LIMIT], actor=actor, error=error, state=state,
        more=more, before=before,
    )  # fmt: skip


@post("/dead-letters/requeue", status_code=200)
async def requeue(request: Request) -> Response[Any]:
    """Queue again what was chosen: the ones that were ticked, or a thousand of one group."""
    asked, state, user = await form(request), request.app.state, request.user
    chosen = [found for each in asked.get("id", []) if (found := uuid_or_none(each)) is not None]
    if "group" in asked:
        async with state.engine.connect() as connection:
            chosen = await _of_group(connection, user.tenant_id, asked["group"][0])
    moved = await state.runtime.ledger.requeue(chosen, by=user.key, tenant_id=user.tenant_id, reason="console")
    return to(f"/console/dead-letters?done={'requeued' if moved else 'nothing'}")


async def _of_group(connection: AsyncConnection, tenant_id: UUID, group: str) -> list[UUID]:
    state, actor, error = (*group.split("\n", 2), "", "")[:3]
    values = {"tenant_id": tenant_id, "state": state, "actor": actor, "error": error, "most": MOST}
    return list((await connection.execute(OF_GROUP, values)).scalars())


handlers = [listing, requeue]
