"""What a claim and a sweep cost does not grow with what waits: pages are counted, among 1,000 rows and among 1,000,000.

A statement is planned for the values at hand until it has run a few times, then for any: both plans are looked at.
"""

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from callboard_workers.ledger import claims, fences, leases, operations, progress, settles, sweeper, uniques
from tests.plans import explain, nodes, touched

FEW, MANY = 1_000, 1_000_000
DUE = 20
"""Rows that each duty finds."""
BATCH = 200
"""Rows of a large claim."""
BACKLOGGED = 5_000
"""Rows in each of the states that a backlog may be in."""
PAGES = 60
"""Pages that a look-up of one row, and a change of it, may touch; an index of all others has more than a hundred."""
TENANT = UUID(int=7)
LEVELS = 2.0
"""How many times as many pages may be touched among the many: their indexes are higher, by a level or two."""

NEW = "webhooks_new_id(), 'demo.work', 'default', 6, '[[], {}]'"
WAITING = f"""
INSERT INTO messages (id, actor, queue, priority, args, due_at, ring_at, expires_at)
SELECT {NEW}, now() + interval '1 day', now() + interval '1 day', now() + interval '2 days'
FROM generate_series(1, :rows)
"""
TO_DO = f"""
INSERT INTO messages (id, actor, queue, priority, args, uncertain_policy, worker, epoch, key,
    state, intent, ring_at, expires_at, lease_until, finished_at)
SELECT {NEW}, 'resend', 'w', 1, kind || n, state, intent, now() + ring, now() + late, now() + lease, now() + ended
FROM generate_series(1, :due) AS n, (VALUES
    ('ring', 'queued', false, interval '-1 s', interval '1 day', NULL::interval, NULL::interval),
    ('late', 'queued', false, '1 day', '-1 s', NULL, NULL),
    ('lapsed', 'running', false, '1 day', NULL, '-1 s', NULL),
    ('silent', 'running', true, '1 day', NULL, '-1 day', NULL),
    ('held', 'running', false, '1 day', NULL, '1 day', NULL),
    ('doubt', 'uncertain', true, '1 day', NULL, NULL, '-1 day')
) AS kinds (kind, state, intent, ring, late, lease, ended)
"""
BACKLOG = f"""
INSERT INTO messages (id, actor, queue, priority, args, uncertain_policy, worker, epoch, due_at, state, intent,
    ring_at, expires_at, lease_until, finished_at)
SELECT {NEW}, 'resend', 'w', 1, now() + interval '1 day', state, state = 'uncertain',
    now() + interval '1 day', now() + interval '1 day', now() + interval '1 day', now()
FROM generate_series(1, :rows), unnest(CAST(:states AS text[])) AS state
"""
STATES = ["queued", "running", "uncertain", "dead", "done"]
KEYED = (
    f"""
    INSERT INTO messages (id, actor, queue, priority, args, tenant_id, key)
    SELECT {NEW}, tenant, key FROM (
        SELECT webhooks_new_id(), n::text FROM generate_series(1, :rows) AS n
        UNION ALL SELECT unnest(ARRAY[NULL, '{TENANT}'::uuid]), 'mine'
    ) AS bearers (tenant, key)
    """,
    "INSERT INTO message_keys SELECT tenant_id, actor, key, now(), id FROM messages",
)
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'messages' AND indexdef NOT LIKE '% UNIQUE %'"
IDS = "SELECT array_agg(id) FROM messages WHERE key LIKE $1 || '%'"


async def fill(connection: AsyncConnection, rows: int) -> None:
    """Adds rows that wait, as a backlog would: what a trigger does for each of them is not what is looked at."""
    indexes = (await connection.execute(text(INDEXES))).all()
    for name, _ in indexes:
        await connection.execute(text(f"DROP INDEX {name}"))
    await connection.execute(text("ALTER TABLE messages DISABLE TRIGGER USER"))
    await connection.execute(text(WAITING), {"rows": rows})
    await connection.execute(text("ALTER TABLE messages ENABLE TRIGGER USER"))
    for _, definition in indexes:
        await connection.execute(text(definition))
    await connection.commit()


async def statements(raw: Any) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """What workers ask of the ledger all the time, each with as much to do as the next."""
    due, held = [await raw.fetchval(IDS, kind) for kind in ("ring", "held")]
    ones = [1] * DUE
    return {
        "fence": (fences.FENCE, (held, ones, 2.0, [None] * len(held))),
        "claim": (claims.CLAIM, (due, ["w"] * DUE, [60.0] * DUE, [claims.Take.UNSUSPECTED] * DUE)),
        "renew": (leases.RENEW, (held, ones, 60.0)),
        "ring": (sweeper.RING, (500,)),
        "expire": (sweeper.EXPIRE, (500,)),
        "reclaim": (sweeper.RECLAIM, (500,)),
        "doubt": (sweeper.DOUBTFUL, (500, 660.0)),
        "resend": (sweeper.RESEND, (500, 660.0)),
    }


async def plans(raw: Any) -> dict[str, dict[str, Any]]:
    """Every statement's plan, made for these values and made for any."""
    found = {}
    for mode in ("force_custom_plan", "force_generic_plan"):
        await raw.execute(f"SET plan_cache_mode = {mode}")
        for name, (sql, arguments) in (await statements(raw)).items():
            found[f"{name}, {mode}"] = await explain(raw, sql, arguments)
    return found


@pytest.mark.timeout(400)
async def test_claims_and_sweeps_touch_no_more_pages_among_a_million_rows_that_wait(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("ALTER TABLE messages SET UNLOGGED"))  # quicker to fill; read as any other
        await connection.execute(text(TO_DO), {"due": DUE})
        await fill(connection, FEW)
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.execute("ANALYZE messages")
        few = await plans(raw)
        await fill(connection, MANY - FEW)
        stale = await plans(raw)
        await raw.execute("ANALYZE messages")
        many = await plans(raw)
    for name, plan in few.items():
        print(f"{name}: {touched(plan)} pages, then {touched(stale[name])}, {touched(many[name])}")
        for later in (stale[name], many[name]):
            assert touched(later) <= LEVELS * touched(plan), json.dumps(later, indent=1)
            read = [
                each for each in nodes(later) if each.get("Relation Name") == "messages" and "Scan" in each["Node Type"]
            ]
            assert read
            assert not [each for each in read if each["Node Type"] == "Seq Scan"], json.dumps(later, indent=1)
            assert later["Actual Rows"] == plan["Actual Rows"] >= DUE, name


@pytest.mark.parametrize("known", ["nothing", "what is done"])
async def test_statements_read_their_own_rows_only_where_statistics_know_nothing_of_the_backlog(
    engine: AsyncEngine, known: str
) -> None:
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await connection.execute(text("ALTER TABLE messages SET (autovacuum_enabled = false)"))
        await connection.execute(text("ALTER TABLE messages DISABLE TRIGGER USER"))  # quicker to fill
        if known == "what is done":
            await connection.execute(text(BACKLOG), {"rows": BACKLOGGED, "states": ["done"]})
            await connection.execute(text("ANALYZE messages"))
        await connection.execute(text(TO_DO), {"due": BATCH})
        await connection.execute(text(BACKLOG), {"rows": BACKLOGGED, "states": STATES})
        await connection.execute(text("ALTER TABLE messages ENABLE TRIGGER USER"))
        await connection.commit()
        for mode in ("force_custom_plan", "force_generic_plan"):
            await raw.execute(f"SET plan_cache_mode = {mode}")
            for many in (1, DUE):
                for name, (sql, arguments) in (await by_id(raw, many)).items():
                    plan = await explain(raw, sql, arguments)
                    assert plan["Actual Rows"] == many or name in {"progress", "canceled"}, (name, mode, many)
                    assert most_read(plan) <= many, (name, mode, many, json.dumps(plan, indent=1))
            for name, (sql, arguments) in sweeps().items():
                plan = await explain(raw, sql, arguments)
                assert plan["Actual Rows"] == BATCH
                assert most_read(plan) <= BATCH, (name, mode, json.dumps(plan, indent=1))


async def test_a_key_is_looked_up_whoever_bears_the_others(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await connection.execute(text("ALTER TABLE messages DISABLE TRIGGER USER"))
        for sql in KEYED:
            await connection.execute(text(sql), {"rows": BACKLOGGED} if ":rows" in sql else {})
        await connection.commit()
        for mode in ("force_custom_plan", "force_generic_plan"):
            await raw.execute(f"SET plan_cache_mode = {mode}")
            for tenant in (TENANT, None):
                bearer = (tenant, "demo.work", "mine")
                for name, (sql, more) in {
                    "holder": (uniques.HOLDER, ()),
                    "standing": (uniques.STANDING, ()),
                    "replace": (uniques.REPLACE, ("[[], {}]", "{}", None, 6, "{}", 1.0, 2.0)),
                }.items():
                    plan = await explain(raw, sql, (*bearer, *more))
                    assert plan["Actual Rows"] == 1, (name, tenant)
                    assert touched(plan) <= PAGES, (name, tenant, mode, json.dumps(plan, indent=1))


async def by_id(raw: Any, many: int) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Statements that name their rows, and so many rows for each."""
    due, held, doubt = [(await raw.fetchval(IDS, kind))[:many] for kind in ("ring", "held", "doubt")]
    ones = [1] * many
    return {
        "fence": (fences.FENCE, (held, ones, 2.0, [None] * len(held))),
        "claim": (claims.CLAIM, (due, ["w"] * many, [60.0] * many, [claims.Take.UNSUSPECTED] * many)),
        "renew": (leases.RENEW, (held, ones, 60.0)),
        "begin": (leases.BEGIN, (held, ones, many)),
        "canceled": (leases.CANCELED, (held, ones)),
        "release": (leases.RELEASE, (held, ones, False)),
        "progress": (progress.PROGRESS, (held, ones, ["{}"] * many)),
        "settle": (settles.SETTLE, settled(held, "done")),
        "settle, to be run again": (settles.SETTLE, settled(held, "queued")),
        "settle a doubt": (settles.SETTLE, settled(doubt, "done")),
        "requeue": (operations.REQUEUE, (doubt, None, "somebody", "{}")),
        "resolve": (operations.RESOLVE, (doubt, ["uncertain"], None, "done", None, None, "{}")),
    }


def sweeps() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Duties that look for their rows by a moment; the others look at all that runs."""
    return {
        "ring": (sweeper.RING, (500,)),
        "expire": (sweeper.EXPIRE, (500,)),
        "resend": (sweeper.RESEND, (500, 660.0)),
    }


def settled(ids: list[UUID], state: str) -> tuple[Any, ...]:
    """The columns of a batch that ends so."""
    values = {"epoch": 1, "state": state, "outcome": "x", "attempts": 0, "snoozes": 0, "definite": True, "noted": True}
    columns = {name: [values.get(name)] * len(ids) for name, _ in settles.FIELDS} | {"again": [True] * len(ids)}
    return tuple((columns | {"id": ids}).values())


def most_read(plan: dict[str, Any]) -> float:
    """Rows of `messages` that the hungriest node of a plan looked at."""
    return max(
        each["Actual Loops"] * (each["Actual Rows"] + each.get("Rows Removed by Filter", 0))
        for each in nodes(plan)
        if each.get("Relation Name") == "messages" and "Scan" in each["Node Type"]
    )
