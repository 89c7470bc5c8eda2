"""What the sweeper reads does not grow with what waits: its indexes are bounded by the time, not read to their end."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from workers.ledger import sweeper

ROWS = 5_000
FILL = """
INSERT INTO messages (id, actor, queue, priority, args, headers, max_crashes, uncertain_policy, due_at, ring_at, rings,
    expires_at)
SELECT uuidv7(), 'demo.work', 'default', 6, '[[], {}]', '{}', 3, 'hold', now(), now() + interval '1 day', 0,
    now() + interval '1 day'
FROM generate_series(1, :rows)
"""


@pytest.mark.parametrize("duty", ["RING", "EXPIRE"])
async def test_a_duty_reads_few_pages_however_many_rows_wait(engine: AsyncEngine, duty: str) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(FILL), {"rows": ROWS})
        await connection.commit()
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.execute("ANALYZE messages")
        plan = await raw.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {getattr(sweeper, duty)}", 500)
    scans = [line for (line,) in plan if "Rows Removed by Filter" in line]
    assert not scans, "\n".join(line for (line,) in plan)
