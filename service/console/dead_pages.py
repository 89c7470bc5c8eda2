"""Dead letters: tasks that failed for good or whose outcome is unknown, by reason; requeued or settled by choice."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.ledger.schema import State
from service.console import buried_letters
from service.console.buried_letters import BURIED
from service.console.messages import Question, confirmed, many
from service.console.pages import ask, page, to, uuid_or_none
from service.console.reasons import BOUNCE, REASON, plain_reason
from service.console.visiting import form, question
from service.core.errors import NotFound
from service.emails.models import ACTOR
from service.tasks.buried import Buried
from service.web import Request

LIMIT = 50
AT_ONCE = 1_000  # tasks that one statement changes
MOST = 20_000  # tasks of a group that one confirmation changes
KINDS = {"attention": f"NOT {BOUNCE}", "bounces": BOUNCE}

WAITING = "m.state IN ('dead', 'uncertain', 'held') AND m.tenant_id = :tenant_id"
GROUPS = f"""
SELECT m.actor, m.state, {REASON} AS reason, count(*) AS letters, max(coalesce(m.finished_at, m.created_at)) AS latest
FROM messages m WHERE {WAITING} AND {{kind}}
GROUP BY 1, 2, 3 ORDER BY letters DESC, 1, 2, 3 LIMIT 50
"""  # noqa: S608 (our own SQL)
IN_GROUP = f"m.state = :state AND m.actor = :actor AND {REASON} = :reason"
LETTERS = f"""
SELECT m.id, m.actor, m.state, m.attempts, coalesce(m.finished_at, m.created_at) AS ended_at, m.error,
    m.outcome ->> 'text' AS reply, {REASON} AS reason, e.recipients,
    coalesce(e.subject, e.rendered_subject, 'Template ' || e.template_key) AS subject
FROM messages m LEFT JOIN emails e ON e.id = m.id AND m.actor = '{ACTOR}'
WHERE {WAITING} AND {{kind}} {{more}} ORDER BY m.id DESC LIMIT :limit
"""  # noqa: S608 (our own SQL)
OF_GROUP = text(f"SELECT m.id FROM messages m WHERE {WAITING} AND {IN_GROUP} ORDER BY m.id LIMIT :most")  # noqa: S608
STATES = text(f"SELECT m.id, m.state, {BOUNCE} AS bounced FROM messages m WHERE {WAITING} AND m.id = ANY(:ids)")  # noqa: S608
COUNTS = text(f"""
SELECT count(*) FILTER (WHERE NOT bounced) AS attention, count(*) FILTER (WHERE bounced) AS bounces FROM (
    SELECT {BOUNCE} AS bounced FROM messages m WHERE {WAITING} LIMIT :most
) AS letters
""")  # noqa: S608 (our own SQL)


@get("/dead-letters")
async def listing(request: Request) -> Response[str]:
    """List dead letters, grouped by reason and one by one."""
    asked, tenant = question(request), request.user.tenant_id
    kind = "bounces" if asked.get("kind") == "bounces" else "attention"
    group = {name: asked.get(name, "") for name in ("state", "actor", "reason")}
    before = uuid_or_none(asked.get("before"))
    kept = await buried_letters.kept(request)
    async with request.app.state.engine.connect() as connection:
        counts = dict((await connection.execute(COUNTS, {"tenant_id": tenant, "most": MOST})).mappings().one())
        groups: list[Any] = list(await _groups(connection, tenant, kind))
        found: list[Any] = []
        if group["state"] != BURIED:
            found += await _letters(connection, tenant, kind, group, before)
    counts["attention"] += len(kept)
    if kind == "attention":
        groups += buried_letters.groups(kept)
        found += buried_letters.letters(kept, group, before)
        found.sort(key=lambda letter: letter["id"], reverse=True)
    more = str(found[LIMIT - 1]["id"]) if len(found) > LIMIT else None
    return page(
        request, "dead_letters.html", groups=groups, letters=found[:LIMIT], counts=counts, kind=kind, more=more,
        before=before, emails=ACTOR, reason_of=plain_reason, most=MOST - 1, state=group["state"], actor=group["actor"],
        reason=group["reason"],
    )  # fmt: skip


@post("/dead-letters/{verb:str}", status_code=200)
async def act(request: Request, verb: FromPath[str]) -> Response[Any]:
    """Requeue, or mark as delivered, not delivered or done, what was selected, letters or a group, once confirmed."""
    asked, tenant = await form(request), request.user.tenant_id
    if verb not in VERBS:
        raise NotFound("There is nothing at this path.")
    async with request.app.state.engine.connect() as connection:
        chosen = await _chosen(connection, tenant, asked)
        rows = (await connection.execute(STATES, {"tenant_id": tenant, "ids": chosen})).mappings().all()
    kept = await _kept(request, asked, chosen, len(rows)) if verb in FOR_REDIS else []
    rows = [row for row in rows if verb == "requeue" or (verb != "done" and row["state"] != State.DEAD)]
    number = len(rows) + len(kept)
    if not number:
        return to("/console/dead-letters?done=nothing")
    if not confirmed(asked):
        return ask(request, _question(verb, rows, kept, asked))
    done = await _do(request, verb, [row["id"] for row in rows])
    done += await buried_letters.move(request, kept, again=verb == "requeue")
    if verb != "requeue":
        word = "nothing" if not done else "removed" if verb == "done" else "settled"
        return to(f"/console/dead-letters?done={word}&n={done}")
    word = "requeued" if done == number else "partly-requeued"
    return to(f"/console/dead-letters?done={word}&n={done}&of={number}")


async def latest(connection: AsyncConnection, tenant_id: UUID, limit: int) -> Sequence[RowMapping]:
    """Read the newest letters that need attention."""
    statement = text(LETTERS.format(kind=KINDS["attention"], more=""))
    return (await connection.execute(statement, {"tenant_id": tenant_id, "limit": limit})).mappings().all()


def place(letter: RowMapping) -> str:
    """The page of a letter: of its email, where it is one, else of its task."""
    is_email = letter["actor"] == ACTOR and letter["recipients"] is not None
    return f"/console/emails/{letter['id'].hex}" if is_email else f"/console/tasks/{letter['id']}"


async def _groups(connection: AsyncConnection, tenant_id: UUID, kind: str) -> Sequence[RowMapping]:
    found = await connection.execute(text(GROUPS.format(kind=KINDS[kind])), {"tenant_id": tenant_id})
    return found.mappings().all()


async def _letters(
    connection: AsyncConnection, tenant_id: UUID, kind: str, group: Mapping[str, str], before: UUID | None
) -> Sequence[RowMapping]:
    columns = {"state": "m.state", "actor": "m.actor", "reason": REASON}
    more = [f"AND {columns[name]} = :{name}" for name, value in group.items() if value]
    more += ["AND m.id < :before"] if before is not None else []
    statement = text(LETTERS.format(kind=KINDS[kind], more=" ".join(more)))
    values = {**group, "tenant_id": tenant_id, "before": before, "limit": LIMIT + 1}
    known = {name: values[name] for name in statement.compile().params}
    return (await connection.execute(statement, known)).mappings().all()


async def _chosen(connection: AsyncConnection, tenant_id: UUID, asked: Mapping[str, list[str]]) -> list[UUID]:
    if "group" not in asked:
        return [found for each in asked.get("id", []) if (found := uuid_or_none(each)) is not None]
    group = _group(asked)
    if group["state"] == BURIED:
        return []
    values = {"tenant_id": tenant_id, **group, "most": MOST}
    return list((await connection.execute(OF_GROUP, values)).scalars())


def _group(asked: Mapping[str, list[str]]) -> dict[str, str]:
    state, actor, reason = (*asked["group"][0].replace("\r\n", "\n").split("\n", 2), "", "")[:3]
    return {"state": state, "actor": actor, "reason": reason}


async def _kept(request: Request, asked: Mapping[str, list[str]], ids: Sequence[UUID], rows: int) -> list[Buried]:
    """Find what was selected and has no row; Redis is read only where that may be."""
    group = _group(asked) if "group" in asked else {}
    if group.get("state", BURIED) != BURIED or (not group and rows == len(ids)):
        return []
    return buried_letters.chosen(await buried_letters.kept(request), ids, group)


async def _do(request: Request, verb: str, ids: Sequence[UUID]) -> int:
    """Change the letters a thousand at a time; return how many did change."""
    user, state = request.user, request.app.state
    how: dict[str, Any] = {"by": user.key, "tenant_id": user.tenant_id, "reason": "console"}
    done = 0
    for first in range(0, len(ids), AT_ONCE):
        some = list(ids[first : first + AT_ONCE])
        if verb == "requeue":
            done += len(await state.runtime.ledger.requeue(some, **how))
            continue
        async with state.engine.begin() as connection:
            done += len(await state.runtime.ledger.resolve(connection, some, VERBS[verb], **how))
    return done


VERBS: dict[str, State | None] = {"requeue": None, "delivered": State.DONE, "not-delivered": State.DEAD, "done": None}
FOR_REDIS = {"requeue", "done"}  # verbs for tasks that only Redis keeps


def _question(
    verb: str, rows: Sequence[RowMapping], kept: Sequence[Buried], asked: Mapping[str, list[str]]
) -> Question:
    risky = sum(row["state"] != State.DEAD for row in rows)
    bounced = sum(row["bounced"] for row in rows)
    what = many(len(rows) + len(kept), "task")
    if verb == "requeue":
        title, label, words = f"Requeue {what}?", f"Requeue {what}", [f"{what} will run again."]
    elif verb == "done":
        title, label = f"Mark {what} as done?", "Mark as done"
        words = [f"{what} of Celery clients will be removed from Redis and not run. This cannot be undone."]
    else:
        outcome = verb.replace("-", " ")
        title, label = f"Mark {what} as {outcome}?", f"Mark as {outcome}"
        words = [f"{what} with an unknown outcome will be marked as {outcome}. This cannot be undone."]
    if verb == "requeue" and risky:
        words.append(f"The outcome of {many(risky, 'task')} is unknown: recipients may get a second copy.")
    if verb == "requeue" and bounced:
        words.append(
            f"{many(bounced, 'email')} went to addresses that do not exist. These addresses are suppressed, so nothing "
            "is sent to them until you remove the suppression."
        )
    if len(rows) == MOST:
        words.append(f"This changes {MOST:,} tasks, the most at a time. Repeat it for the rest.")
    words += buried_letters.words(verb, kept)
    fields = [(name, value) for name in ("id", "group") for value in asked.get(name, [])]
    return Question(
        title=title, words=words, action=f"/console/dead-letters/{verb}", label=label, back="/console/dead-letters",
        fields=fields, danger=bool(risky),
    )  # fmt: skip


handlers = [listing, act]
