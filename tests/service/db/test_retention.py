"""Records go when their time is over, and never one that still waits for something."""

import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.ledger.pruning import first_id
from callboard_workers.testing import Workbench, workbench
from service.access.actors import forget_answers
from service.broadcasts.actors import forget_bulks
from service.db import retention
from service.emails.actors import forget_emails
from service.jobs.actors import forget_jobs
from service.settings import Settings

TENANT = UUID(int=1)
DAY = 86_400.0


@pytest.fixture
async def bench(engine: AsyncEngine) -> AsyncIterator[Workbench]:
    async with workbench(engine) as made:
        made.runtime.state["settings"] = Settings.from_env({"RECORD_RETENTION": str(30 * DAY)})
        yield made


def aged(days: float, number: int) -> UUID:
    """An id as it was made so many days ago."""
    return UUID(int=first_id(time.time() - days * DAY).int + number)


async def put(engine: AsyncEngine, statement: str, rows: list[dict[str, object]]) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement), rows)


async def left(engine: AsyncEngine, table: str) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.execute(sa.text(f"SELECT status FROM {table} ORDER BY id"))).scalars())


async def test_old_mails_go_and_those_that_wait_stay(
    engine: AsyncEngine, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    old = ["sent", "uncertain", "sent", "failed", "queued", "sending", "sent", "canceled"]
    await put(
        engine,
        "INSERT INTO emails (id, tenant_id, mode, status, message_id, sender, recipients, subject)"
        " VALUES (:id, :tenant, 'live', :status, 'm', 's', '{r}', 's')",
        [{"id": aged(31, n), "tenant": TENANT, "status": status} for n, status in enumerate(old)]
        + [{"id": aged(29, 1), "tenant": TENANT, "status": "sent"}],
    )
    await bench.run(forget_emails.message())
    assert await left(engine, "emails") == ["uncertain", "queued", "sending", "sent"]


async def test_nothing_goes_where_retention_is_0(engine: AsyncEngine, bench: Workbench) -> None:
    bench.runtime.state["settings"] = Settings.from_env({"RECORD_RETENTION": "0"})
    await put_jobs(engine)
    await bench.run(forget_jobs.message())
    assert len(await left(engine, "jobs")) == 3


async def test_a_worker_whose_clock_is_a_year_ahead_deletes_nothing_early(
    engine: AsyncEngine, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_jobs(engine)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 365 * DAY)
    await bench.run(forget_jobs.message())
    assert await left(engine, "jobs") == ["pending", "completed"]


async def test_old_jobs_go_and_those_that_wait_stay(engine: AsyncEngine, bench: Workbench) -> None:
    await put_jobs(engine)
    await bench.run(forget_jobs.message())
    assert await left(engine, "jobs") == ["pending", "completed"]


async def put_jobs(engine: AsyncEngine) -> None:
    await put(
        engine,
        "INSERT INTO jobs (id, tenant_id, type, mode, status, priority, input)"
        " VALUES (:id, :tenant, 't', 'live', :status, 'normal', '{}')",
        [
            {"id": aged(days, 1), "tenant": TENANT, "status": status}
            for days, status in [(40, "completed"), (39, "pending"), (1, "completed")]
        ],
    )


async def test_answers_go_when_their_time_is_over(engine: AsyncEngine, bench: Workbench) -> None:
    await put(
        engine,
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, response, expires_at)"
        " VALUES (:tenant, :key, '', 202, '{}', clock_timestamp() + make_interval(hours => :hours))",
        [{"tenant": TENANT, "key": str(hours), "hours": hours} for hours in (-2, -1, 1)],
    )
    await bench.run(forget_answers.message())
    async with engine.connect() as connection:
        assert list((await connection.execute(sa.text("SELECT key FROM idempotency_keys"))).scalars()) == ["1"]


async def test_old_bulks_go_with_their_recipients_once_their_mails_are_gone(
    engine: AsyncEngine, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    ids = [aged(31, 1), aged(31, 2), aged(29, 3)]
    states = zip(ids, ("open", "running", "paused"), strict=True)
    await put(
        engine,
        "INSERT INTO bulks (id, tenant_id, mode, status, request) VALUES (:id, :tenant, 'live', :status, '{}')",
        [{"id": id, "tenant": TENANT, "status": status} for id, status in states],
    )
    await put(
        engine,
        "INSERT INTO bulk_recipients (bulk_id, seq, tenant_id, address, to_) VALUES (:id, :n, :tenant, :address, 'r')",
        [{"id": id, "n": n, "tenant": TENANT, "address": f"a{n}"} for id in ids for n in range(5)],
    )
    await put(
        engine,
        "INSERT INTO emails (id, tenant_id, mode, status, message_id, sender, recipients, subject, bulk_id)"
        " VALUES (:id, :tenant, 'live', 'uncertain', 'm', 's', '{r}', 's', :bulk)",
        [{"id": aged(31, 9), "tenant": TENANT, "bulk": ids[1]}],
    )
    await bench.run(forget_bulks.message())
    assert await left(engine, "bulks") == ["running", "paused"]
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM bulk_recipients")) == 10
