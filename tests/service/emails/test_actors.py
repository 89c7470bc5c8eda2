"""A stored mail leaves once, and every way in which it may fail to is told apart."""

import asyncio
import email
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from service.emails import entry, letters, views
from service.emails.events import events, story
from service.emails.schemas import EmailOut, EmailRequest, Event
from service.settings import Settings
from tests.faults.sink import Rule, Sink
from workers.context import Correlation, correlation
from workers.execution import Delivery, execute
from workers.policy import Ignored, Outcome
from workers.testing import Workbench, workbench

TENANT = uuid7()
HELLO = {"to": "Ada <ada@example.org>", "subject": "Hello", "text": "Good morning."}


class Post:
    """A worker in the hand, with rows in Postgres and a mail server that misbehaves as its rules say."""

    def __init__(self, engine: AsyncEngine, bench: Workbench, sink: Sink) -> None:
        self.engine, self.bench, self.sink = engine, bench, sink

    async def enqueue(self, request: EmailRequest | None = None, mode: str = "live", **fields: Any) -> UUID:
        made = request or msgspec.convert({**HELLO, **fields}, EmailRequest)
        async with AsyncSession(self.engine) as session:
            id = await entry.enqueue(session, made, tenant_id=TENANT, mode=mode)
            await session.commit()
        return id

    async def work(self, id: UUID) -> Outcome:
        """Answer the doorbell once, at the time it is due."""
        await self.sql("UPDATE messages SET due_at = clock_timestamp() WHERE id = :id AND state = 'queued'", id=id)
        return await execute(self.bench.runtime, Delivery(id=id, actor="emails.send_email", durable=True))

    async def look(self, id: UUID) -> EmailOut:
        async with self.engine.connect() as connection:
            found = await views.one(connection, TENANT, id)
        assert found is not None
        return found

    async def events(self, id: UUID) -> list[Event]:
        async with self.engine.connect() as connection:
            return await events(connection, TENANT, id) or []

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        async with self.engine.begin() as connection:
            found = await connection.execute(text(statement), values)
            return list(found.mappings()) if found.returns_rows else []

    @property
    def mails(self) -> list[EmailMessage]:
        return [email.message_from_bytes(mail.data, policy=default) for mail in self.sink.mails]


MakePost = Callable[..., AbstractAsyncContextManager[Post]]


@pytest.fixture
def post_to(engine: AsyncEngine) -> MakePost:
    @asynccontextmanager
    async def make(sink: Sink, **environ: str) -> AsyncIterator[Post]:
        where = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port), "MAIL_FROM": "Callboard <mail@callboard.example>"}
        async with workbench(engine) as bench:
            bench.runtime.state["settings"] = Settings.from_env({**where, **environ})
            yield Post(engine, bench, sink)

    return make


@pytest.fixture
async def post(post_to: MakePost) -> AsyncIterator[Post]:
    async with Sink() as sink, post_to(sink) as made:
        yield made


async def test_a_mail_is_sent_once_to_all_its_recipients_and_its_bcc_stays_hidden(post: Post) -> None:
    id = await post.enqueue(
        to=["Ada <ada@example.org>", "grace@example.org"],
        cc=['"Hopper, G." <gh@example.org>'],
        bcc=["hidden@example.org", "ada@example.org"],
        reply_to="help@example.org",
        html="<p>Good <b>morning</b></p>",
        headers={"X-Order": "7"},
        attachments=[
            {"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"},
            {"filename": "b.bin", "content": "AAEC"},
        ],
    )
    post.bench.assert_sent(_actor(), id)
    await post.bench.drain()
    assert isinstance(await post.work(id), Ignored)
    ((sent,), (mail,)) = post.sink.mails, post.mails
    assert sent.recipients == ["ada@example.org", "grace@example.org", "gh@example.org", "hidden@example.org"]
    assert sent.sender == "mail@callboard.example"
    assert b"hidden@" not in sent.data
    assert mail["Message-ID"] == f"<{id}@callboard.example>"
    assert mail["To"] == "Ada <ada@example.org>, grace@example.org"
    assert mail["X-Order"] == "7"
    assert [part.get_content() for part in mail.iter_attachments()] == ["hello", b"\0\1\2"]
    found = await post.look(id)
    assert (found.status, found.attempts, found.error) == ("sent", 1, None)
    assert found.sent_at is not None
    accepted, sending = await post.events(id)
    assert (accepted.event, accepted.detail["recipients"]) == ("accepted", 4)
    assert (sending.event, sending.detail["code"], sending.detail["phase"]) == ("sent", 250, "dot")
    assert {"host", "text", "duration_ms", "worker", "attempt"} <= sending.detail.keys()


async def test_a_mail_costs_its_worker_four_statements_and_mails_at_once_share_them(post: Post) -> None:
    await post.enqueue()
    await post.bench.drain()
    id = await post.enqueue()
    checkouts: list[int] = []
    event.listen(post.engine.sync_engine, "checkout", lambda *_: checkouts.append(1))
    await post.bench.drain()
    assert len(checkouts) == 4, "claim, load, fence, settle"
    ids = [await post.enqueue() for _ in range(40)]
    checkouts.clear()
    await asyncio.gather(
        *(execute(post.bench.runtime, Delivery(id=id, actor="emails.send_email", durable=True)) for id in ids)
    )
    assert len(checkouts) < 4 * 40 / 2
    assert len({mail.message_id for mail in post.sink.mails}) == len(post.sink.mails) == 42
    assert id not in ids


@pytest.mark.parametrize(
    ("phase", "reply"),
    [
        ("rcpt", "450 4.2.0 greylisted"),
        ("data", "451 4.3.0 later"),
        ("dot", "451 4.3.0 try again"),
        ("banner", "421 no"),
    ],
)
async def test_a_temporary_refusal_is_told_and_the_mail_follows(post_to: MakePost, phase: str, reply: str) -> None:
    async with Sink({phase: [Rule(reply, times=1)]}) as sink, post_to(sink) as post:
        id = await post.enqueue()
        await post.work(id)
        waiting = await post.look(id)
        assert (waiting.status, waiting.attempts) == ("queued", 1)
        assert waiting.error is not None
        assert waiting.error.retryable
        assert waiting.next_attempt_at is not None
        _, deferred, _ = await post.events(id)
        assert (deferred.event, deferred.detail["code"]) == ("deferred", int(reply[:3]))
        assert reply[4:] in deferred.detail["text"]
        assert deferred.detail["phase"] == phase
        await post.work(id)
        found = await post.look(id)
        assert (found.status, found.attempts, found.error) == ("sent", 2, None)
        assert sink.count(found.message_id) == 1
        assert [item.event for item in await post.events(id)] == ["accepted", "deferred", "sent"]


@pytest.mark.parametrize(
    ("phase", "reply", "code"),
    [("rcpt", "550 5.1.1 no such user", "no_such_user"), ("dot", "554 5.6.0 spam", "content_rejected")],
)
async def test_a_final_refusal_fails_the_mail_with_the_servers_words(
    post_to: MakePost, phase: str, reply: str, code: str
) -> None:
    async with Sink({phase: [Rule(reply)]}) as sink, post_to(sink) as post:
        id = await post.enqueue()
        await post.work(id)
        found = await post.look(id)
        assert (found.status, found.attempts) == ("failed", 1)
        assert found.error is not None
        assert (found.error.code, found.error.retryable) == (code, False)
        assert reply[4:] in found.error.detail
        assert (await post.events(id))[-1].event == "failed"
        assert sink.mails == []


async def test_a_recipient_refused_beside_others_is_named_in_the_events(post_to: MakePost) -> None:
    async with Sink({"rcpt": [Rule("550 5.1.1 unknown", when="bob@")]}) as sink, post_to(sink) as post:
        id = await post.enqueue(to=["ada@example.org", "bob@example.org"])
        await post.work(id)
        assert sink.mails[0].recipients == ["ada@example.org"]
        assert (await post.look(id)).status == "sent"
        assert (await post.events(id))[-1].detail["refused"] == {"bob@example.org": "550 5.1.1 unknown"}


async def test_a_connection_lost_after_the_dot_is_uncertain_and_nothing_resends_it(post_to: MakePost) -> None:
    async with Sink({"dot": [Rule(accept=True, then="close", times=1)]}) as sink, post_to(sink) as post:
        id = await post.enqueue()
        await post.work(id)
        found = await post.look(id)
        assert found.status == "uncertain"
        (*_, last) = await post.events(id)
        assert last.event == "uncertain"
        assert "nobody can know" in last.detail["explanation"]
        await post.bench.sweep()
        assert isinstance(await post.work(id), Ignored)
        assert sink.count(found.message_id) == 1
        await post.bench.runtime.ledger.requeue([id], by="operator")
        assert (await post.look(id)).status == "queued"
        await post.work(id)
        assert (await post.look(id)).status == "sent"
        assert sink.count(found.message_id) == 2, "the operator chose it, and the Message-ID is the same"
        assert [item.event for item in await post.events(id)] == ["accepted", "uncertain", "requeued", "sent"]


async def test_while_the_mail_server_is_away_mail_waits_a_bounded_time_and_says_so(post_to: MakePost) -> None:
    async with Sink() as sink:
        pass  # its port is closed now
    async with post_to(sink) as post:
        id = await post.enqueue()
        for attempt in range(1, 4):
            await post.work(id)
            found = await post.look(id)
            assert (found.status, found.attempts) == ("queued", attempt)
            assert found.next_attempt_at is not None
            assert found.next_attempt_at <= datetime.now(UTC) + timedelta(seconds=600)
        deferred = [item for item in await post.events(id) if item.event == "deferred"]
        assert len(deferred) == 3
        assert all(item.detail["phase"] == "connect" for item in deferred)


async def test_a_mail_canceled_while_its_body_is_on_the_wire_is_not_sent(post_to: MakePost) -> None:
    async with Sink({"data": [Rule(delay=0.3)]}) as sink, post_to(sink) as post:
        id = await post.enqueue()
        working = asyncio.create_task(post.work(id))
        while not sink.sessions or "DATA" not in sink.sessions[0].verbs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await post.bench.runtime.ledger.cancel(id)
        await working
        assert sink.mails == []
        await post.sql("UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")
        await post.bench.sweep()
        assert (await post.look(id)).status == "canceled"


async def test_a_mail_that_expired_is_never_sent(post: Post) -> None:
    id = await post.enqueue(expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await post.sql("UPDATE messages SET expires_at = clock_timestamp() - interval '1 s'")
    await post.work(id)
    await post.bench.sweep()
    assert (await post.look(id)).status == "expired"
    assert (await post.events(id))[-1].event == "expired"
    assert post.sink.mails == []


@pytest.mark.parametrize(
    ("to", "statuses"),
    [
        ("delivered@simulator.callboard.test", ["sent"]),
        ("bounced+7@simulator.callboard.test", ["failed"]),
        ("complained@simulator.callboard.test", ["sent"]),
        ("deferred@simulator.callboard.test", ["queued", "queued", "sent"]),
        ("anybody@example.org", ["sent"]),
    ],
)
async def test_mail_of_a_test_key_never_leaves_the_machine(post: Post, to: str, statuses: list[str]) -> None:
    id = await post.enqueue(mode="test", to=to)
    for status in statuses:
        await post.work(id)
        assert (await post.look(id)).status == status
    assert post.sink.sessions == []
    (*_, last) = await post.events(id)
    assert last.detail.get("simulated", status == "failed")
    assert last.detail.get("evidence") == ("complained" if to.startswith("complained") else None)


async def test_mail_of_a_test_key_reaches_the_development_mailbox_but_not_for_magic_refusals(post_to: MakePost) -> None:
    async with Sink() as sink, post_to(sink, SMTP_MAILBOX="true") as post:
        await post.work(await post.enqueue(mode="test"))
        await post.work(await post.enqueue(mode="test", to="bounced@simulator.callboard.test"))
        await post.work(await post.enqueue(to=["delivered@simulator.callboard.test"]))
        assert [mail.recipients for mail in sink.mails] == [["ada@example.org"], ["delivered@simulator.callboard.test"]]


async def test_with_sending_off_a_mail_fails_says_why_and_can_be_requeued(post_to: MakePost) -> None:
    async with Sink() as sink, post_to(sink, MAIL_SEND="false") as post:
        id = await post.enqueue()
        await post.work(id)
        found = await post.look(id)
        assert found.status == "failed"
        assert found.error is not None
        assert found.error.code == "sending_disabled"
        assert sink.sessions == []
    async with Sink() as sink, post_to(sink) as post:
        await post.bench.runtime.ledger.requeue([id], by="operator")
        await post.work(id)
        assert (await post.look(id)).status == "sent"


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
        await entry.enqueue(session, letters.welcome("ada@example.org", name="Ada"), tenant_id=TENANT)
        await session.rollback()
    assert await post.bench.drain() == []
    assert await post.sql("SELECT 1 FROM emails UNION ALL SELECT 1 FROM messages") == []


async def test_a_letter_queued_and_one_sent_directly_are_the_same_mail(post: Post) -> None:
    letter = letters.course_enrollment(
        "Ada <ada@example.org>", name="Ada", course_name="Tides", course_url="https://academy.example/tides"
    )
    await post.work(await post.enqueue(letter))
    sent = await entry.send(letter)
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
            id = await entry.enqueue(session, letters.welcome("ada@example.org", name="Ada"))
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


def _actor() -> Any:
    from service.emails.actors import send_email

    return send_email
