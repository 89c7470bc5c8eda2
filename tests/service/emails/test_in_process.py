"""Mail from inside the process, and a record that follows the ledger whoever moves it."""

from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.context import Correlation, correlation
from service.emails import builtin_emails, in_process
from service.emails.dedup_window import release
from service.emails.events import story
from tests.service.emails.postman import TENANT, Post


async def test_the_record_follows_every_transition_whoever_makes_it(post: Post) -> None:
    ids = [await post.enqueue() for _ in range(8)]

    async def statuses() -> list[str]:
        return [row["status"] for row in await post.sql("SELECT status FROM emails ORDER BY id")]

    async def move(change: str, some: list[UUID]) -> None:
        await post.sql(f"UPDATE messages SET {change} WHERE id = ANY(:ids)", ids=some)

    assert await statuses() == ["queued"] * 8
    running = "state = 'running', epoch = epoch + 1, worker = 'w', lease_until = clock_timestamp() + interval '9 s'"
    await move(running, ids[:6])
    assert await statuses() == ["sending"] * 6 + ["queued"] * 2
    await move("state = 'done'", ids[:2])
    await move("state = 'dead'", ids[2:3])
    await move("state = 'uncertain'", ids[3:5])
    await move("state = 'held'", ids[4:5])
    await move("state = 'queued'", ids[5:6])
    await move("state = 'canceled'", ids[6:7])
    await move("state = 'expired'", ids[7:])
    assert await statuses() == ["sent", "sent", "failed", "uncertain", "uncertain", "queued", "canceled", "expired"]


async def test_a_change_of_status_copies_no_body(post: Post) -> None:
    id = await post.enqueue(html="<p>" + " ".join(str(n * n) for n in range(20_000)) + "</p>")
    before = await _sizes(post)
    for _ in range(3):
        await post.sql("UPDATE messages SET state = 'dead' WHERE id = :id", id=id)
        await post.sql("UPDATE messages SET state = 'queued' WHERE id = :id", id=id)
    assert (await post.sql("SELECT status FROM emails"))[0]["status"] == "queued"
    assert await _sizes(post) == before


async def test_what_is_queued_leaves_only_if_its_transaction_commits(post: Post) -> None:
    async with AsyncSession(post.engine) as session:
        await in_process.enqueue(session, builtin_emails.welcome("ada@example.org", name="Ada"), tenant_id=TENANT)
        await session.rollback()
    assert await post.bench.drain() == []
    assert await post.sql("SELECT 1 FROM emails UNION ALL SELECT 1 FROM messages") == []


async def test_a_key_whose_window_is_over_is_taken_in_the_callers_transaction(post: Post) -> None:
    letter = msgspec.structs.replace(
        builtin_emails.welcome("ada@example.org", name="Ada"), dedup_key="w", dedup_window=60
    )
    first, within = await post.enqueue(letter), await post.enqueue(letter)
    await post.sql("UPDATE emails SET dedup_until = clock_timestamp()")
    later = await post.enqueue(letter)
    assert (within, later == first) == (first, False)
    assert [row["id"] for row in await post.sql("SELECT id FROM messages ORDER BY id")] == [first, later]


async def test_a_key_is_taken_that_is_let_go_of_while_it_is_asked_for(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = msgspec.structs.replace(builtin_emails.welcome("ada@example.org", name="Ada"), dedup_key="w")
    first = await post.enqueue(letter)

    async def another_lets_go(*arguments: Any) -> bool:
        done = await release(*arguments)
        await post.sql("UPDATE emails SET dedup_key = NULL WHERE id = :id", id=first)
        return done

    monkeypatch.setattr(in_process, "release", another_lets_go)
    second = await post.enqueue(letter)
    assert second != first
    assert len(await post.sql("SELECT 1 FROM emails JOIN messages USING (id)")) == 2


async def test_a_letter_queued_and_one_sent_directly_are_the_same_mail(post: Post) -> None:
    letter = builtin_emails.course_enrollment(
        "Ada <ada@example.org>", name="Ada", course_name="Tides", course_url="https://academy.example/tides"
    )
    await post.work(await post.enqueue(letter))
    sent = await in_process.send(letter)
    assert sent.reply.code == 250
    queued, direct = post.mails
    assert queued["Subject"] == direct["Subject"] == "You are enrolled in Tides"
    assert queued["To"] == direct["To"] == "Ada <ada@example.org>"
    bodies = [[part.get_content() for part in mail.walk() if not part.is_multipart()] for mail in (queued, direct)]
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) == 2
    assert await post.sql("SELECT count(*) AS n FROM emails") == [{"n": 1}]


async def test_a_request_in_process_belongs_to_its_tenant_and_its_story(post: Post) -> None:
    token = correlation.set(Correlation(request_id="r-9", tenant_id=TENANT))
    try:
        async with AsyncSession(post.engine) as session:
            id = await in_process.enqueue(session, builtin_emails.welcome("ada@example.org", name="Ada"))
            await session.commit()
    finally:
        correlation.reset(token)
    await post.bench.drain()
    async with post.engine.connect() as connection:
        told = await story(connection, TENANT, "r-9")
        nothing = await story(connection, uuid7(), "r-9")
    assert [(item.what, item.id) for item in told] == [
        ("email_accepted", f"em_{id.hex}"),
        ("email_sent", f"em_{id.hex}"),
    ]
    assert nothing == []


async def _sizes(post: Post) -> list[Any]:
    """How many chunks are stored out of line: an update that copied a body would leave dead ones behind."""
    (row,) = await post.sql("SELECT reltoastrelid::regclass::text AS toast FROM pg_class WHERE relname = 'emails'")
    return await post.sql(f"SELECT count(*) AS chunks, pg_relation_size('{row['toast']}') AS size FROM {row['toast']}")
