"""The bytes of a file are stored once, and stay for as long as a mail is to carry them."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers.ledger.pruning import first_id
from service.emails.actors import forget_files
from service.emails.attachment_store import keep, keep_again
from service.mail.attachments import Attachment
from tests.service.emails.posting import HELLO, execute_sql
from tests.service.emails.posting import post as send
from tests.service.emails.postman import TENANT, Post

FILES = [
    {"filename": "terms.pdf", "content": "JVBERi0x", "content_type": "application/pdf"},
    {"filename": "again.pdf", "content": "JVBERi0x", "content_type": "application/pdf"},
    {"filename": "note.txt", "content": "aGVsbG8=", "content_type": "text/plain"},
]


async def kept(post: Post) -> list[Any]:
    return [bytes(row["data"]) for row in await post.sql("SELECT data FROM attachment_files ORDER BY data")]


async def test_many_mails_carry_one_file(post: Post) -> None:
    ids = [await post.enqueue(attachments=FILES) for _ in range(3)]
    assert await kept(post) == [b"%PDF-1", b"hello"]
    for id in ids:
        await post.work(id)
    for mail in post.mails:
        parts = [(part.get_filename(), part.get_content()) for part in mail.iter_attachments()]
        assert parts == [("terms.pdf", b"%PDF-1"), ("again.pdf", b"%PDF-1"), ("note.txt", "hello")]


async def test_single_mails_and_batches_share_a_file_and_tenants_do_not(api: httpx.AsyncClient, make_key: Any) -> None:
    await send(api, attachments=FILES)
    answer = await api.post("/v1/emails/batch", json={"emails": [{**HELLO, "attachments": FILES}] * 3})
    assert answer.status_code == 202, answer.text
    other = {"Authorization": f"Bearer {await make_key(tenant='others')}"}
    await send(api, headers=other, attachments=FILES[:1])
    rows = await execute_sql("SELECT tenant_id, count(*) AS files FROM attachment_files GROUP BY 1 ORDER BY 2")
    assert [row["files"] for row in rows] == [1, 2]


async def test_a_file_goes_when_no_mail_names_it_and_nobody_asked_for_it_for_long(post: Post) -> None:
    await post.enqueue(attachments=FILES[:1])
    await post.enqueue(attachments=FILES[2:], scheduled_at="2999-01-01T00:00:00Z")
    await post.sql("UPDATE attachment_files SET used_at = clock_timestamp() - interval '400 days'")
    await post.sql("DELETE FROM emails WHERE scheduled_at IS NULL")
    await post.sql("UPDATE emails SET id = :id", id=first_id(time.time() - 400 * 86_400))
    await post.bench.run(forget_files.message())
    assert await kept(post) == [b"hello"]
    await post.enqueue(attachments=FILES[:1])
    await post.sql("DELETE FROM emails")
    await post.bench.run(forget_files.message())
    assert await kept(post) == [b"%PDF-1"], "what was asked for a moment ago stays"


async def test_a_file_in_use_is_marked_by_whoever_can_and_waited_for_by_nobody(post: Post) -> None:
    logo = Attachment("logo.png", b"logo")
    async with AsyncSession(post.engine) as slow:
        await keep(slow, TENANT, [logo])
        await slow.commit()
        await post.sql("UPDATE attachment_files SET used_at = clock_timestamp() - interval '2 hours'")
        await keep(slow, TENANT, [logo])
        async with asyncio.timeout(20), AsyncSession(post.engine) as other, other.begin():
            await keep(other, TENANT, [logo])
        await slow.commit()
    (row,) = await post.sql("SELECT used_at > clock_timestamp() - interval '1 minute' AS young FROM attachment_files")
    assert row["young"]


@pytest.mark.parametrize("way", ["single", "batch"])
async def test_a_request_waits_a_moment_for_a_file_that_is_just_being_stored_and_says_so(
    api: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    mail = {**HELLO, "attachments": FILES[2:]}
    path, body = ("/v1/emails", mail) if way == "single" else ("/v1/emails/batch", {"emails": [mail]})
    tenant = (await execute_sql("SELECT id FROM tenants WHERE name = 'tests'"))[0]["id"]
    async with AsyncSession(engine) as slow:
        await keep(slow, tenant, [Attachment("hello.txt", b"hello")])
        async with asyncio.timeout(30):
            busy = await api.post(path, json=body, headers={"Idempotency-Key": "once"})
        assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (503, "attachment-busy", "1")
        assert (await send(api, attachments=FILES[:1]))["id"], "another file waits for nobody"
        for place in ("api", "batch.routes"):
            monkeypatch.setattr(f"service.emails.{place}.PATIENCE", 60.0)
        waiting = asyncio.create_task(api.post(path, json=body, headers={"Idempotency-Key": "soon"}))
        await waits_for_a_lock(engine)
        await slow.commit()
        assert (await waiting).status_code == 202
    assert (await api.post(path, json=body, headers={"Idempotency-Key": "once"})).status_code == 202
    rows = await execute_sql("SELECT count(*) AS mails FROM emails")
    assert rows[0]["mails"] == 3


async def waits_for_a_lock(engine: AsyncEngine) -> None:
    """Returns once a statement waits for somebody else's transaction."""
    found = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(20), engine.connect() as connection:
        while not (await connection.execute(found)).scalar_one():
            await connection.rollback()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("wanted", ["file", "copy"])
async def test_a_file_stays_that_is_asked_for_while_it_is_forgotten(post: Post, wanted: str) -> None:
    id = await post.enqueue(attachments=FILES[2:])
    await post.sql("UPDATE attachment_files SET used_at = clock_timestamp() - interval '400 days'")
    async with AsyncSession(post.engine) as session, session.begin():
        if wanted == "file":
            await keep(session, TENANT, [Attachment("again.txt", b"hello")])
        else:
            await keep_again(session, id)
        await post.bench.run(forget_files.message())
    await post.bench.run(forget_files.message())
    assert await kept(post) == [b"hello"]


async def test_a_mail_whose_file_is_gone_says_so_and_one_of_before_has_its_own_bytes(post: Post) -> None:
    gone, before = await post.enqueue(attachments=FILES[:1]), await post.enqueue(attachments=FILES)
    await post.sql("DELETE FROM attachment_files")
    await post.sql("UPDATE emails SET attachment_data = '%PDF-1%PDF-1hello' WHERE id = :id", id=before)
    for id in (gone, before):
        await post.work(id)
    lost = await post.look(gone)
    assert lost.error is not None
    assert (lost.status, lost.error.code) == ("failed", "content_refused")
    [mail] = post.mails
    assert [part.get_content() for part in mail.iter_attachments()] == [b"%PDF-1", b"%PDF-1", "hello"]
