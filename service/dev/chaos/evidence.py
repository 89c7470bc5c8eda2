"""Reads what the oracle judges: the rows from Postgres, the doorbells from Redis."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import asyncpg
import msgspec
import redis.asyncio as redis
from sqlalchemy.ext.asyncio import create_async_engine

from callboard_workers.ledger.operations import requeue
from callboard_workers.message import Message
from callboard_workers.redis.protocol import encode
from service.db.engine import address
from service.dev.chaos.oracle import Row

QUEUE = "email"
ACTOR = "emails.send_email"

# Of all that runs, what sends mail: an actor that runs by the calendar has no record and no receiver.
ROWS = f"""
SELECT id, m.state, m.epoch, m.intent, coalesce(e.status, '(no record)') AS status,
    coalesce(e.message_id, id::text) AS message_id, coalesce(m.error::text, '') AS error,
    coalesce(e.recipients, '{{}}') AS recipients, e.follows, (m.outcome ->> 'code')::int AS code,
    ARRAY(SELECT jsonb_object_keys(m.outcome -> 'suppressed')) AS suppressed,
    -- an older version has no such column
    coalesce(to_jsonb(e) ->> 'recipient_replies', '{{}}') AS replies,
    (SELECT count(*) FROM message_attempts a WHERE a.message_id = id AND a.outcome = 'resent') AS resent
FROM (SELECT * FROM messages WHERE actor = '{ACTOR}') m FULL JOIN emails e USING (id)
"""  # noqa: S608 (our own constant)

# What the passing of time does: whatever waits for its moment is due.
# Rows that a worker holds are left for the next call: waiting for them in another order would be a deadlock.
DUE = f"""
WITH waiting AS (
    SELECT id FROM messages WHERE state = 'queued' AND actor = '{ACTOR}' FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messages m SET due_at = least(m.due_at, clock_timestamp()), ring_at = clock_timestamp()
FROM waiting w WHERE m.id = w.id
"""  # noqa: S608 (our own constant)

QUARANTINED = "SELECT id FROM messages WHERE state = 'dead' AND error ->> 'type' = 'Quarantined'"

# The moment that the sweeper waits for, when the worker is dead.
LAPSED = "UPDATE messages SET lease_until = clock_timestamp() - interval '2 h' WHERE id = ANY($1) AND state = 'running'"

UNFINISHED = f"""
SELECT state, count(*) AS many FROM messages WHERE state IN ('queued', 'running') AND actor = '{ACTOR}' GROUP BY state
"""  # noqa: S608 (our own constant)


class Books:
    """The database and the Redis of a run, looked at from beside; opened anew after the servers were restarted."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url

    async def fetch(self, statement: str, *arguments: Any, patience: float = 30.0) -> Sequence[asyncpg.Record]:
        """Runs one statement on a connection of its own; waits for a Postgres that is starting."""
        give_up = time.monotonic() + patience
        while True:
            try:
                connection = await asyncpg.connect(self.database_url, timeout=5)
                try:
                    return await connection.fetch(statement, *arguments, timeout=30)
                finally:
                    await connection.close(timeout=5)
            except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(0.2)

    async def rows(self) -> dict[UUID, Row]:
        """Every mail."""
        found = await self.fetch(ROWS)
        return {each["id"]: _row(each) for each in found}

    async def unfinished(self) -> Counter[str]:
        """How many mails wait and run."""
        return Counter({each["state"]: each["many"] for each in await self.fetch(UNFINISHED)})

    async def make_due(self) -> None:
        """Lets the time pass that mails wait for: retries, doorbells."""
        await self.fetch(DUE)

    async def lapse(self, ids: Sequence[UUID]) -> None:
        """Lets the leases of mails run out, long ago, as the death or the silence of their worker would."""
        await self.fetch(LAPSED, list(ids))

    async def requeue_quarantined(self) -> int:
        """Queues again what was given up because its workers died, as an operator would; how many there were."""
        ids = [each["id"] for each in await self.fetch(QUARANTINED)]
        if not ids:
            return 0
        engine = create_async_engine(address(self.database_url)[0])
        try:
            return len(await requeue(engine, ids, by="chaos"))
        finally:
            await engine.dispose()

    async def held(self) -> dict[str, list[Any]]:
        """The messages in Redis, by key: those that wait in lists, and those that workers hold."""
        found: dict[str, list[Any]] = {}
        async with redis.Redis.from_url(self.redis_url) as server:
            async for key in server.scan_iter(match="*"):
                kind = await server.type(key)
                if kind == b"list":
                    found[key.decode()] = await server.lrange(key, 0, -1)
                elif kind == b"hash" and b"unacked" in key:
                    held = (await cast(Any, server.hgetall(key))).values()
                    found[key.decode()] = [text.partition(b"\n")[2] for text in held]
        return found

    async def doorbells(self) -> tuple[UUID | str, ...]:
        """What the queues hold, and what workers hold of them."""
        return tuple(_doorbell(text) for texts in (await self.held()).values() for text in texts)

    async def ring(self, ids: Sequence[UUID]) -> None:
        """Pushes doorbells, whether their rows want one or not. Errors of Redis are none of ours."""
        bells = [encode(Message(id=id, actor=ACTOR, queue=QUEUE), durable=True) for id in ids]
        if bells:
            async with redis.Redis.from_url(self.redis_url, socket_timeout=2) as server:
                await server.lpush(QUEUE, *bells)

    async def flush(self) -> None:
        """Empties Redis."""
        async with redis.Redis.from_url(self.redis_url, socket_timeout=2) as server:
            await server.flushall()


def _row(found: asyncpg.Record) -> Row:
    values = {name: found[name] for name in Row.__struct_fields__}
    stored: dict[str, dict[str, str]] = msgspec.json.decode(found["replies"])
    suppressed = dict.fromkeys(found["suppressed"], "suppressed")
    values["replies"] = {**suppressed, **{recipient: each["status"] for recipient, each in stored.items()}}
    return Row(**{**values, "recipients": tuple(found["recipients"])})


def _doorbell(text: bytes) -> UUID | str:
    try:
        headers = msgspec.json.decode(text)["headers"]
        return UUID(headers["id"]) if headers["durable"] is True else text.decode(errors="replace")
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return text.decode(errors="replace")
