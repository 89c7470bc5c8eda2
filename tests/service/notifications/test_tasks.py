"""The task names of Celery clients: whom they act for, what they answer, and that coming twice tells nobody twice."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import DeadLetter, Done
from callboard_workers.testing import run_now
from service.db.engine import create_engine
from service.notifications.actors import forget_notifications
from service.notifications.compatibility import check_tenant
from service.notifications.deliver import ACTOR
from service.settings import Settings, SettingsError
from tests.service.conftest import MakeKey
from tests.service.notifications.conftest import Desk, Sql, desk_of


async def call(desk: Desk, name: str, *args: Any, id: UUID | None = None, **kwargs: Any) -> Any:
    """One delivery of a direct message."""
    queue = "celery"
    return await execute(
        desk.runtime, Delivery(id=id or uuid4(), actor=name, args=args, kwargs=kwargs, headers={}, queue=queue)
    )


async def deliver_all(desk: Desk, sql: Sql) -> None:
    for row in await sql("SELECT id FROM messages WHERE actor = :actor AND state = 'queued'", actor=ACTOR):
        await execute(desk.runtime, Delivery(id=row["id"], actor=ACTOR, durable=True))


async def unread(api: httpx.AsyncClient, *users: str) -> list[int]:
    return [(await api.get(f"/v1/users/{user}/feed")).json()["counts"]["unread"] for user in users]


async def test_one_many_and_a_whole_organization(desk: Desk, sql: Sql) -> None:
    await desk.api.put("/v1/users/7", json={"email": "seven@example.com"})
    for member in ("7", "ada"):
        await desk.api.put(f"/v1/organizations/acme/members/{member}")
    one = await call(desk, "notifications.send_notification", 7, "Hello", "There.", data={"prompt": 1})
    many = await call(desk, "notifications.send_bulk_notifications", [7, "ada", "bob"], title="Hi", message="All.")
    whole = await call(desk, "notifications.broadcast_notification", "acme", "Lunch", channels=["inbox"])
    assert [type(outcome) for outcome in (one, many, whole)] == [Done] * 3
    assert one.result["notification_id"].startswith("no_")
    await deliver_all(desk, sql)
    assert await unread(desk.api, "7", "ada", "bob") == [3, 2, 1]
    [newest, *_] = (await desk.api.get("/v1/users/bob/feed")).json()["items"]
    assert newest["data"] == {"title": "Hi", "body": "All."}
    assert len((await desk.api.get("/v1/emails")).json()["items"]) == 2


async def test_a_task_that_comes_twice_tells_nobody_twice(desk: Desk, sql: Sql) -> None:
    await desk.api.put("/v1/users/ada", json={"email": "ada@example.com"})
    id = uuid4()
    for _ in range(2):
        await call(desk, "notifications.send_bulk_notifications", ["ada", "bob"], "Hello", id=id)
        await deliver_all(desk, sql)
    assert await unread(desk.api, "ada", "bob") == [1, 1]
    assert len((await desk.api.get("/v1/emails")).json()["items"]) == 1
    first, second = [
        await call(desk, "notifications.send_email", "cem@example.com", "Hi", "There.", id=id) for _ in range(2)
    ]
    assert first.result == second.result
    assert len((await desk.api.get("/v1/emails")).json()["items"]) == 2


async def test_send_email_takes_recipient_by_name_as_it_did(desk: Desk) -> None:
    await call(desk, "notifications.send_email", recipient="cem@example.com", subject="Hi", message="There.")
    [email] = (await desk.api.get("/v1/emails")).json()["items"]
    assert email["to"] == ["cem@example.com"]
    outcome = await call(desk, "notifications.send_email", recipient="cem@example.com")
    assert isinstance(outcome, DeadLetter)
    assert "`subject`, `message`" in str(outcome)


async def test_what_is_wrong_is_said_and_final(desk: Desk) -> None:
    for name, args, kwargs in (
        ("notifications.send_notification", ("-x", "Hello"), {}),
        ("notifications.send_notification", ("ada", "Hello"), {"channels": ["sms"]}),
        ("notifications.send_email", ("not an address", "s", "m"), {}),
    ):
        outcome = await call(desk, name, *args, **kwargs)
        assert isinstance(outcome, DeadLetter), outcome


async def test_a_second_tenant_changes_nothing_unless_it_is_named(
    desk: Desk, engine: AsyncEngine, make_key: MakeKey, redis_url: str
) -> None:
    other = {"Authorization": f"Bearer {await make_key(tenant='others')}"}
    assert isinstance(await call(desk, "notifications.send_notification", "ada", "Hello"), Done)
    assert len((await desk.api.get("/v1/notifications")).json()["items"]) == 1
    async with desk_of(desk.api, engine, CELERY_TENANT="others", REDIS_URL=redis_url) as named:
        assert isinstance(await call(named, "notifications.send_notification", "ada", "Hello"), Done)
    assert len((await desk.api.get("/v1/notifications", headers=other)).json()["items"]) == 1
    async with desk_of(desk.api, engine, CELERY_TENANT="nobody", REDIS_URL=redis_url) as named:
        assert isinstance(await call(named, "notifications.send_notification", "ada", "Hello"), DeadLetter)


async def test_a_worker_refuses_to_start_where_its_tenant_is_missing(engine: AsyncEngine, make_key: MakeKey) -> None:
    await check_tenant(engine, "shop")  # before there is any
    await make_key(tenant="tests")
    for name in ("", "tests"):
        await check_tenant(engine, name)
    with pytest.raises(SettingsError, match="CELERY_TENANT: there is no tenant 'shop'"):
        await check_tenant(engine, "shop")
    nowhere = create_engine(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    await check_tenant(nowhere, "shop")


async def test_the_sweep_rings_for_what_waits(desk: Desk, sql: Sql) -> None:
    await desk.notify(recipients={"users": ["ada"]})
    await sql("UPDATE messages SET ring_at = clock_timestamp() - interval '1 s'")
    outcome = await call(desk, "emails.process_queue")
    assert isinstance(outcome, Done)
    assert outcome.result["rung"] == 1


@pytest.mark.parametrize(("days", "left"), [(80, 1), (100, 0)])
async def test_what_is_old_is_forgotten(desk: Desk, sql: Sql, days: int, left: int) -> None:
    await desk.api.put("/v1/users/ada", json={"email": "ada@example.com"})
    await desk.deliver(recipients={"users": ["ada"]}, channels=["inbox", "email"], dedup_key="k")
    await sql(
        "WITH aged AS (UPDATE notifications SET id = uuid_at(clock_timestamp() - make_interval(days => :days))"
        " RETURNING id)"
        ", told AS (UPDATE deliveries SET notification_id = aged.id FROM aged)"
        " UPDATE notification_keys SET notification_id = aged.id FROM aged",
        days=days,
    )
    await sql(
        "INSERT INTO notification_keys SELECT user_no, 'over', tenant_id, now() - interval '1 s', notification_id"
        " FROM notification_keys"
    )
    assert isinstance(await run_now(forget_notifications), Done)
    for table, count in (("notifications", left), ("deliveries", 2 * left), ("notification_keys", left)):
        assert len(await sql(f"SELECT 1 AS one FROM {table}")) == count, table
    assert await unread(desk.api, "ada") == [left]


@pytest.mark.parametrize(("days", "left"), [(80, 1), (100, 0)])
async def test_digests_are_forgotten_though_no_mail_came_of_them(desk: Desk, sql: Sql, days: int, left: int) -> None:
    await desk.api.put("/v1/users/ada", json={"email": "ada@example.com"})
    await desk.prefer("ada", any={"email": "daily"})
    await desk.deliver(recipients={"users": ["ada"]}, channels=["email"])
    await sql(
        "UPDATE digests SET closed_at = clock_timestamp() - make_interval(days => :days), outcome = 'suppressed'",
        days=days,
    )
    assert isinstance(await run_now(forget_notifications), Done)
    assert len(await sql("SELECT 1 AS one FROM digests")) == left
