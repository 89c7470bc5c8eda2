"""For tests: run actors in this process, through the same pipeline as a worker's.

outcome = await run_now(send_email, email.id)                    # one attempt, no broker, no row

async with workbench(engine) as bench:                           # a broker in memory; rows, if there is an engine
    await send_email.enqueue(session, email.id); await session.commit()
    bench.assert_sent(send_email, email.id)
    await bench.drain()                                          # run all that is due, and what that sends
    await bench.advance(3600)                                    # an hour passes: delays, retries, expiry, cron
    bench.crash("after fence"); await bench.drain()              # a worker dies there

`callboard_workers.testing.plugin` has them as fixtures of pytest.
"""

from callboard_workers.testing.broker import MemoryBroker, delivery, doorbell
from callboard_workers.testing.clock import Clock
from callboard_workers.testing.crashes import Crashed, Point, die
from callboard_workers.testing.declared import forgetting
from callboard_workers.testing.harness import Ran, Workbench, run_now, workbench

__all__ = [
    "Clock",
    "Crashed",
    "MemoryBroker",
    "Point",
    "Ran",
    "Workbench",
    "delivery",
    "die",
    "doorbell",
    "forgetting",
    "run_now",
    "workbench",
]
