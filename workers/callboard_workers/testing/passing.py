"""How time passes in the ledger: what is written there grows older by so many seconds.

Moments of rows that have ended are left alone (the database lets nobody touch them), and those of crons are moments of
the calendar. Rows of a transaction that is not committed are not seen.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.errors import WorkersError
from callboard_workers.ledger.database import fetch
from callboard_workers.ledger.sweeper import DOUBT

_AGE = "- make_interval(secs => $1)"
_MOMENTS = ("due_at", "ring_at", "expires_at", "lease_until", "created_at", "started_at", "finished_at")

AGE = (
    f"UPDATE messages SET {', '.join(f'{name} = {name} {_AGE}' for name in _MOMENTS)}"  # noqa: S608 (our own names)
    " WHERE state NOT IN ('done', 'canceled', 'expired')",
    f"UPDATE message_keys SET until = until {_AGE}",  # noqa: S608
    f"UPDATE message_starts SET until = until {_AGE}",  # noqa: S608
)

NEXT = f"""
SELECT extract(epoch FROM min(moment) - clock_timestamp())::float8 AS seconds FROM (
    SELECT due_at AS moment FROM messages WHERE state = 'queued'
    UNION ALL SELECT expires_at FROM messages WHERE state = 'queued'
    UNION ALL SELECT ring_at FROM messages WHERE state = 'queued' AND $1
    UNION ALL SELECT lease_until + CASE WHEN intent THEN {DOUBT} ELSE 0 END * interval '1 second'
        FROM messages WHERE state = 'running'
    UNION ALL SELECT finished_at + {DOUBT} * interval '1 second'
        FROM messages WHERE state = 'uncertain' AND uncertain_policy = 'resend' AND NOT cancel_requested
    UNION ALL SELECT s.until FROM message_starts s WHERE EXISTS (
        SELECT FROM messages m WHERE m.gate = s.gate AND m.state = 'queued' AND NOT m.admitted
    )
) AS moments WHERE isfinite(moment) AND moment > clock_timestamp()
"""  # noqa: S608 (our own constants)

RESULTS = """
SELECT id, extract(epoch FROM result_until - clock_timestamp())::float8 AS seconds
FROM messages WHERE result_until IS NOT NULL
"""

FORGET = "UPDATE messages SET result = NULL, result_until = NULL WHERE id = ANY($1::uuid[]) AND state = 'done'"

PATIENCE = 10.0
"""Seconds to wait for somebody who holds a row."""


async def age(engine: AsyncEngine, seconds: float) -> None:
    """Make everything that is written `seconds` older; WorkersError if somebody holds a row and does not let go."""
    for statement in AGE:
        try:
            await fetch(engine, statement, seconds, timeout=PATIENCE)
        except TimeoutError:
            raise WorkersError(
                "time cannot pass while an open transaction holds messages: commit it or roll it back first"
            ) from None


async def upcoming(engine: AsyncEngine, *, bells: bool) -> float | None:
    """Seconds until the next thing that a sweeper or a worker would do; None if nothing is to come.

    `bells`: also when the sweeper would ring once more for what nobody came for.
    """
    [row] = await fetch(engine, NEXT, bells)
    seconds: float | None = row["seconds"]
    return seconds
