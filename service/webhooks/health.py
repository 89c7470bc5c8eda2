"""How an endpoint fares: it rests after failures in a row, and is disabled after days of them.

All of it is in Postgres, so every worker knows it. An endpoint that fares well costs no statement here.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.webhooks.models import gate

IN_A_ROW = 5
"""Failures after which an endpoint rests: one call at a time then finds out whether it is back."""
REST = (5.0, 300.0)
"""Seconds of the first rest and of the longest; each is twice the one before."""
PROBE = 20.0
"""Seconds that the one call which tries a resting endpoint has."""
GIVE_UP = 5 * 86_400.0
"""Seconds of nothing but failures after which an endpoint is disabled."""

TAKE_PROBE = text("""
UPDATE webhook_endpoints SET resting_until = clock_timestamp() + make_interval(secs => :probe)
WHERE id = :id AND resting_until <= clock_timestamp() RETURNING id
""")

WELL = text("""
UPDATE webhook_endpoints SET failures = 0, failing_since = NULL, resting_until = NULL
WHERE id = :id AND (failing_since IS NOT NULL OR resting_until IS NOT NULL)
""")

ILL = text("""
UPDATE webhook_endpoints
SET failures = failures + 1, failing_since = coalesce(failing_since, clock_timestamp()),
    resting_until = CASE WHEN failures + 1 >= :in_a_row THEN clock_timestamp()
        + make_interval(secs => least(:longest, :first * 2 ^ least(failures + 1 - :in_a_row, 20))) END
WHERE id = :id
RETURNING enabled AND failing_since < clock_timestamp() - make_interval(secs => :give_up) AS hopeless, failing_since,
    resting_until
""")

PUT_OFF = text("""
UPDATE messages SET due_at = :until
WHERE gate = :gate AND NOT admitted AND state = 'queued' AND due_at < :until
""")

DISABLE = text("""
UPDATE webhook_endpoints SET enabled = false, disabled_reason = :reason, updated_at = clock_timestamp()
WHERE id = :id AND enabled RETURNING id
""")

CANCEL = text("""
UPDATE messages SET state = 'canceled', finished_at = clock_timestamp(), cancel_requested = true
WHERE gate = :gate AND state = 'queued'
""")


async def may_try(engine: AsyncEngine, id: UUID) -> bool:
    """Take the one call that tries an endpoint whose rest is over; False where another one has it."""
    async with engine.begin() as connection:
        return (await connection.execute(TAKE_PROBE, {"id": id, "probe": PROBE})).first() is not None


async def note_well(engine: AsyncEngine, id: UUID) -> None:
    """Note that an endpoint that fared badly takes deliveries again."""
    async with engine.begin() as connection:
        await connection.execute(WELL, {"id": id})


async def note_ill(engine: AsyncEngine, id: UUID) -> bool:
    """Note a failure; after days of them the endpoint is disabled, and then this is True."""
    values = {"id": id, "in_a_row": IN_A_ROW, "first": REST[0], "longest": REST[1], "give_up": GIVE_UP}
    async with engine.begin() as connection:
        row = (await connection.execute(ILL, values)).one_or_none()
        if row is None:
            return False
        if row.hopeless:
            return await disable(connection, id, _reason(row.failing_since))
        if row.resting_until is not None:  # or each of them would be taken up only to be put off
            await connection.execute(PUT_OFF, {"gate": gate(id), "until": row.resting_until})
    return False


def _reason(since: datetime) -> str:
    return f"Every call has failed since {since:%Y-%m-%d %H:%M} UTC. Mend the endpoint, enable it, then redeliver."


async def disable(connection: AsyncConnection, id: UUID, reason: str) -> bool:
    """Disable an endpoint and cancel what waits for it, in the caller's transaction; False where it was disabled."""
    if (await connection.execute(DISABLE, {"id": id, "reason": reason})).first() is None:
        return False
    await cancel_waiting(connection, id)
    return True


async def cancel_waiting(connection: AsyncConnection, id: UUID) -> None:
    """Cancel every delivery that waits for an endpoint; `POST …/redeliver` sends them after all."""
    await connection.execute(CANCEL, {"gate": gate(id)})
