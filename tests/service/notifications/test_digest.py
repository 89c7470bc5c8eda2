"""Digests: what is collected over a period is one mail, exactly one, at the reader's own hour."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.policy import Done
from callboard_workers.testing import run_now
from service.notifications import digest
from service.notifications.actors import send_digests
from service.notifications.deliver import engine_of
from tests.service.notifications.conftest import Desk, Sql, desk_of

DUE = "UPDATE digests SET due_at = due_at - interval '2 days' WHERE closed_at IS NULL"


async def mails(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get("/v1/emails")).json()["items"]
    return found


async def reader(desk: Desk, id: str, pace: str, **more: Any) -> None:
    await desk.api.put(f"/v1/users/{id}", json={"email": f"{id}@example.com", **more})
    await desk.prefer(id, any={"email": pace})


async def test_what_was_collected_is_one_mail(desk: Desk, sql: Sql) -> None:
    await reader(desk, "ada", "daily")
    await reader(desk, "bob", "hourly")
    for title in ("First", "Second", "Third"):
        told = await desk.deliver(
            recipients={"users": ["ada", "bob"]}, channels=["inbox", "email"], data={"title": title}
        )
        assert told["counts"]["channels"]["email"]["collected"] == 2
    await sql("UPDATE digests SET due_at = due_at + interval '1 day'")  # an hour may end while this runs
    assert isinstance(await run_now(send_digests), Done)
    assert await mails(desk.api) == []
    await sql(DUE)
    assert isinstance(await run_now(send_digests), Done)
    found = await mails(desk.api)
    assert sorted(mail["to"][0] for mail in found) == ["ada@example.com", "bob@example.com"]
    content = (await desk.api.get(f"/v1/emails/{found[0]['id']}/content")).json()
    assert content["subject"] == "3 new notifications"
    assert [content["text"].index(title) for title in ("First", "Second", "Third")] == sorted(
        content["text"].index(title) for title in ("First", "Second", "Third")
    )
    assert await sql("SELECT 1 AS one FROM deliveries WHERE channel = 'email' AND email_id IS NULL") == []
    await run_now(send_digests)
    assert len(await mails(desk.api)) == 2
    rung = {each.actor for each in desk.runtime.publisher.rung}  # type: ignore[attr-defined]
    assert "emails.send_email" in rung


async def test_the_next_period_is_the_next_mail(desk: Desk, sql: Sql) -> None:
    await reader(desk, "ada", "daily")
    for count in (1, 2):
        await desk.deliver(recipients={"users": ["ada"]}, channels=["email"])
        await sql(DUE)
        await run_now(send_digests)
        assert len(await mails(desk.api)) == count
        await sql("UPDATE digests SET due_at = due_at - interval '10 days'")
    rows = await sql("SELECT outcome, items FROM digests")
    assert rows == [{"outcome": "mailed", "items": 1}] * 2


async def test_workers_that_send_at_once_send_each_digest_once(desk: Desk, sql: Sql) -> None:
    for number in range(30):
        await reader(desk, f"u{number}", "daily")
    await desk.deliver(recipients={"users": [f"u{number}" for number in range(30)]}, channels=["email"])
    await sql(DUE)
    await asyncio.gather(*(run_now(send_digests) for _ in range(4)))
    found = (await desk.api.get("/v1/emails", params={"limit": 200})).json()["items"]
    assert len({mail["to"][0] for mail in found}) == len(found) == 30


async def test_what_is_collected_while_a_digest_is_closed_goes_into_the_next(
    desk: Desk, sql: Sql, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader(desk, "ada", "daily")
    await desk.deliver(recipients={"users": ["ada"]}, channels=["email"])
    await sql(DUE)
    late = await desk.notify(recipients={"users": ["ada"]}, channels=["email"])
    close = digest._close
    meanwhile: list[asyncio.Task[Any]] = []

    async def slowly(*args: Any, **more: Any) -> None:
        meanwhile.append(asyncio.create_task(desk.work(late)))
        await asyncio.sleep(0.3)
        assert not meanwhile[0].done(), "it waits for the digest that is being closed"
        await close(*args, **more)

    monkeypatch.setattr(digest, "_close", slowly)
    assert await digest.send_some(desk.runtime, engine_of(desk.runtime)) is not None
    assert isinstance(await meanwhile[0], Done)
    rows = await sql("SELECT outcome FROM digests ORDER BY due_at")
    assert [row["outcome"] for row in rows] == ["mailed", None]
    waiting = await sql("SELECT 1 AS one FROM deliveries WHERE channel = 'email' AND email_id IS NULL")
    assert len(waiting) == 1


async def test_who_cannot_be_reached_costs_nothing(desk: Desk, sql: Sql) -> None:
    for id in ("ada", "bob", "cem"):
        await reader(desk, id, "daily")
    await desk.deliver(recipients={"users": ["ada", "bob", "cem"]}, channels=["email"])
    await desk.api.put("/v1/users/ada", json={})
    await desk.api.post("/v1/suppressions", json={"address": "bob@example.com"})
    await sql(DUE)
    await run_now(send_digests)
    assert [mail["to"] for mail in await mails(desk.api)] == [["cem@example.com"]]
    rows = await sql("SELECT u.id, g.outcome FROM digests g JOIN users u ON u.no = g.user_no ORDER BY u.id")
    assert [row["outcome"] for row in rows] == ["unreachable", "suppressed", "mailed"]


async def test_a_tenants_own_template_that_does_not_fit_holds_up_no_digest(desk: Desk, sql: Sql) -> None:
    await reader(desk, "ada", "daily")
    await desk.deliver(recipients={"users": ["ada"]}, channels=["email"], data={"title": "First"})
    words = {"subject": "For {{ invoice }}", "html": "<p>{{ invoice }}</p>"}
    put = await desk.api.put("/v1/templates/custom", json={"contents": {"en": words}, "default_locale": "en"})
    assert put.status_code in {200, 201}, put.text
    assert (await desk.api.post("/v1/templates/custom/publish", json={})).status_code == 200
    await sql(DUE)
    assert isinstance(await run_now(send_digests), Done)
    (mail,) = await mails(desk.api)
    content = (await desk.api.get(f"/v1/emails/{mail['id']}/content")).json()
    assert content["subject"] == "1 new notification"
    assert "First" in content["text"]


async def test_an_address_that_is_refused_by_now_holds_up_no_other_digest(desk: Desk, sql: Sql) -> None:
    for id in ("ada", "bob"):
        await reader(desk, id, "daily")
    await desk.deliver(recipients={"users": ["ada", "bob"]}, channels=["email"])
    await sql("UPDATE users SET email = 'ada@localhost' WHERE id = 'ada'")
    await sql(DUE)
    assert isinstance(await run_now(send_digests), Done)
    assert [mail["to"] for mail in await mails(desk.api)] == [["bob@example.com"]]
    rows = await sql("SELECT u.id, g.outcome FROM digests g JOIN users u ON u.no = g.user_no ORDER BY u.id")
    assert [row["outcome"] for row in rows] == ["unreachable", "mailed"]


async def test_where_mail_is_off_digests_are_closed_without_one(
    api: httpx.AsyncClient, engine: AsyncEngine, desk: Desk, sql: Sql, redis_url: str
) -> None:
    await reader(desk, "ada", "daily")
    await desk.deliver(recipients={"users": ["ada"]}, channels=["email"])
    await sql(DUE)
    async with desk_of(api, engine, EMAIL_ENABLED="false", REDIS_URL=redis_url):
        await run_now(send_digests)
    assert await mails(api) == []
    assert await sql("SELECT outcome FROM digests") == [{"outcome": "disabled"}]


@pytest.mark.parametrize(
    ("zone", "hour"), [("UTC", 8), ("Asia/Tokyo", 23), ("America/New_York", 12), ("Asia/Kolkata", 2)]
)
async def test_a_day_ends_at_eight_where_the_reader_lives(engine: AsyncEngine, zone: str, hour: int) -> None:
    async with engine.connect() as connection:
        both = text("SELECT digest_due('daily', :zone), statement_timestamp()")
        due, now = (await connection.execute(both, {"zone": zone})).one()
    assert 0 < (due - now).total_seconds() <= 25 * 3600
    shift = due.astimezone(UTC).hour - hour
    assert shift in (0, 1, -1), "an hour more or less: summer time"
    assert due.minute in (0, 30)


async def test_an_hour_ends_with_the_hour(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        due: datetime = (await connection.execute(text("SELECT digest_due('hourly', 'Asia/Kolkata')"))).scalar_one()
    assert (due.minute, due.second) == (0, 0)


def test_a_digest_of_many_says_how_many_more() -> None:
    items = [{"data": {"title": f"T{number}"}, "type": "a.b", "items": 60} for number in range(50)]
    request = digest.request({"email": "ada@example.com", "locale": None, "pace": "hourly"}, items)
    assert request.template is not None
    lines = request.template.variables["message"].splitlines()
    assert (len(lines), lines[0], lines[-1]) == (51, "• T0", "… and 10 more")
