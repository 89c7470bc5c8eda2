"""What the webhooks slice does: `deliver`, one event to one endpoint, and forgetting what is old."""

import random
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.actors.actor import actor
from callboard_workers.context import current
from callboard_workers.cron import Cron
from callboard_workers.errors import Dead, NoRuntime, Retry, Snooze
from callboard_workers.ledger.pruning import oldest
from callboard_workers.limits import Concurrency
from callboard_workers.runtime import Runtime
from service.webhooks import health
from service.webhooks.deliver import Parcel, load, send
from service.webhooks.models import ACTOR, QUEUE, SLOTS, endpoint_id
from service.webhooks.resources import Postroom
from service.webhooks.schedule import PAUSES, Fault, pause

BATCH = 5_000
MOST = 1_000_000  # rows of one night

FORGET = text("""
WITH old AS (
    SELECT d.id, d.event_id FROM webhook_deliveries d
    WHERE d.id < :before AND NOT EXISTS (SELECT FROM messages m WHERE m.id = d.id)
    ORDER BY d.id LIMIT :batch
),
gone AS (DELETE FROM webhook_deliveries d USING old WHERE d.id = old.id),
bare AS (
    DELETE FROM webhook_events v USING (SELECT DISTINCT event_id FROM old) AS o
    WHERE v.id = o.event_id AND NOT EXISTS (
        SELECT FROM webhook_deliveries d WHERE d.event_id = v.id AND d.id NOT IN (SELECT id FROM old)
    )
)
SELECT count(*) FROM old
""")


@actor(
    name=ACTOR,
    queue=QUEUE,
    max_retries=1_000,
    max_snoozes=32_000,
    time_limit=60,
    concurrency=Concurrency(SLOTS, key=lambda delivery_id, endpoint_id: endpoint_id),
)
async def deliver(delivery_id: UUID, endpoint_id: UUID) -> None:
    """Tell one endpoint of one event. At least once: the receiver knows a repetition by its `webhook-id`.

    The pauses between attempts are schedule.PAUSES; `max_retries` is above them, since a person may put it back.
    """
    runtime, context = Runtime.of_loop(), current()
    parcel = await load(_engine(runtime), delivery_id)
    if parcel is None or parcel.endpoint_id is None or not parcel.enabled:
        gone = parcel is None or parcel.endpoint_id is None  # with its deliveries, while this one was under way
        context.report(skipped="the endpoint was deleted" if gone else "the endpoint is disabled")
        return
    await _wait_for_rest(runtime, parcel)
    told, fault = await send(Postroom.of(runtime), parcel)
    if fault is not None:
        raise await _failed(runtime, parcel, told, fault)
    context.report(**told)
    if parcel.ill:
        await health.note_well(_engine(runtime), endpoint_id)


async def _wait_for_rest(runtime: Runtime, parcel: Parcel) -> None:
    """Snooze while the endpoint rests; when the rest is over, one delivery goes and the others wait for its word."""
    if parcel.rests is None:
        return
    if parcel.rests > 0 or not await health.may_try(_engine(runtime), _id(parcel)):
        wait = parcel.rests if parcel.rests > 0 else health.REST[0]
        raise Snooze(wait + random.uniform(0.1, 1.0), "the endpoint rests after failures in a row")  # noqa: S311


async def _failed(runtime: Runtime, parcel: Parcel, told: dict[str, object], fault: Fault) -> Retry | Dead:
    """Note that the endpoint failed, and say what becomes of the delivery."""
    engine, log = _engine(runtime), current().log
    detail = {**told, "code": fault.code, "reason": fault.code}
    if fault.gone:
        async with engine.begin() as connection:
            await health.disable(connection, _id(parcel), fault.detail)
        log.warning("webhook_disabled", endpoint=endpoint_id(_id(parcel)), reason=fault.code)
        return Dead(fault.detail, detail)
    if await health.note_ill(engine, _id(parcel)):
        log.warning("webhook_disabled", endpoint=endpoint_id(_id(parcel)), reason="failing")
        return Dead(fault.detail, detail)
    wait = pause(parcel.failed + 1, fault)
    if wait is None:
        return Dead(f"{len(PAUSES) + 1} attempts over days have failed: {fault.detail}", detail)
    return Retry(wait, fault.detail, detail)


def _id(parcel: Parcel) -> UUID:
    if parcel.endpoint_id is None:
        raise ValueError("the endpoint was deleted")
    return parcel.endpoint_id


@actor(name="webhooks.forget", queue=QUEUE, cron=Cron("23 3 * * *"), time_limit=3600)
async def forget() -> None:
    """Delete deliveries whose message has been pruned, and events that no delivery is left of."""
    runtime = Runtime.of_loop()
    retention: float = runtime.state["settings"].retention
    values = {"before": await oldest(_engine(runtime), retention), "batch": BATCH}
    for _ in range(MOST // BATCH):
        async with _engine(runtime).begin() as connection:
            if (await connection.execute(FORGET, values)).scalar_one() < BATCH:
                return


def _engine(runtime: Runtime) -> AsyncEngine:
    if runtime.engine is None:
        raise NoRuntime("deliveries are in Postgres: this Runtime was made without an engine")
    return runtime.engine
