"""A stored mail leaves once, and every way in which it may fail to is told apart."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import Ignored
from service.emails.actors import send_email
from tests.faults.sink import Rule, Sink
from tests.service.emails.postman import MakePost, Post


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
    post.bench.assert_sent(send_email, id)
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
    ids = [await post.enqueue() for _ in range(40)]
    with checkouts() as one:
        await execute(post.bench.runtime, Delivery(id=id, actor="emails.send_email", durable=True))
    assert len(one) == 4, "claim, load, fence, settle"
    with checkouts() as many:
        await asyncio.gather(
            *(execute(post.bench.runtime, Delivery(id=id, actor="emails.send_email", durable=True)) for id in ids)
        )
    assert len(many) < 4 * 40 / 2
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


async def test_a_suppression_that_postgres_never_takes_changes_nothing_about_its_mail(post_to: MakePost) -> None:
    async with Sink({"rcpt": [Rule("550 5.1.1 unknown", when="bob@")]}) as sink, post_to(sink) as post:
        await post.sql("ALTER TABLE suppressions ADD CONSTRAINT no_notes CHECK (note IS NULL) NOT VALID")
        try:
            part = await post.enqueue(to=["ada@example.org", "bob@example.org"])
            whole = await post.enqueue(to=["bob@example.org"])
            for id in (part, whole):
                await post.work(id)
            assert [(await post.look(id)).status for id in (part, whole)] == ["sent", "failed"]
            assert await post.sql("SELECT 1 FROM suppressions") == []
        finally:
            await post.sql("ALTER TABLE suppressions DROP CONSTRAINT no_notes")


async def test_a_recipient_put_off_beside_others_gets_the_mail_later_and_the_others_no_second_copy(
    post_to: MakePost,
) -> None:
    async with Sink({"rcpt": [Rule("450 4.2.0 greylisted", when="bob@", times=2)]}) as sink, post_to(sink) as post:
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        id = await post.enqueue(
            to=["ada@example.org", "bob@example.org"], lane="critical", expires_at=until, uncertain="resend"
        )
        await post.work(id)
        assert (await post.look(id)).status == "sent"
        (rest,) = await post.sql("SELECT m.* FROM messages m JOIN emails USING (id) WHERE follows = :id", id=id)
        for status in ("queued", "queued", "sent"):
            assert (await post.look(rest["id"])).status == status
            await post.work(rest["id"])
        first, second = await post.look(id), await post.look(rest["id"])
        assert (second.follows, second.message_id, second.to) == (first.id, first.message_id, first.to)
        assert [mail.recipients for mail in sink.mails] == [["ada@example.org"], ["bob@example.org"]]
        assert sink.mails[0].data == sink.mails[1].data
        assert (rest["priority"], rest["uncertain_policy"]) == (0, "resend")
        assert second.expires_at == first.expires_at


@pytest.mark.parametrize(
    ("phase", "reply", "first", "longest"),
    [
        ("rcpt", "450 4.2.0 greylisted", 10, 600),
        ("rcpt", "452 4.2.2 over quota", 1_800, 14_400),
        ("mail", "530 5.7.0 authentication required", 60, 900),
    ],
    ids=["short", "long", "until mended"],
)
async def test_the_next_attempt_waits_as_the_back_off_of_the_reply_says(
    post_to: MakePost, phase: str, reply: str, first: float, longest: float
) -> None:
    async with Sink({phase: [Rule(reply)]}) as sink, post_to(sink) as post:
        id = await post.enqueue()
        for ceiling in (first, 2 * first, longest):
            if ceiling == longest:
                await post.sql("UPDATE messages SET attempts = 40")
            await post.work(id)
            [row] = await post.sql("SELECT extract(epoch FROM due_at - clock_timestamp()) AS wait FROM messages")
            assert ceiling / 2 - 5 < row["wait"] <= ceiling


async def test_a_mail_is_tried_for_five_days(post_to: MakePost) -> None:
    async with Sink({"rcpt": [Rule("450 4.2.0 full")]}) as sink, post_to(sink) as post:
        id = await post.enqueue()
        await post.sql("UPDATE emails SET created_at = created_at - interval '4 days 23 hours'")
        await post.work(id)
        assert (await post.look(id)).status == "queued"
        await post.sql("UPDATE emails SET created_at = created_at - interval '2 hours'")
        await post.work(id)
        found = await post.look(id)
        assert found.status == "failed"
        assert found.error is not None
        assert "gave up after 5 days" in found.error.detail


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
    async with Sink({"data": [Rule(delay=1.5)]}) as sink, post_to(sink) as post:
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


async def test_a_mail_may_ask_to_be_sent_again_where_nobody_can_know(post_to: MakePost) -> None:
    async with Sink({"dot": [Rule(then="close", accept=True, times=2)]}) as sink, post_to(sink) as post:
        held, again = await post.enqueue(), await post.enqueue(uncertain="resend")
        for id in (held, again):
            await post.work(id)
            assert (await post.look(id)).status == "uncertain"
        await post.sql("UPDATE messages SET finished_at = clock_timestamp() - interval '1 hour'")
        await post.bench.sweep()
        await post.work(again)
        assert [(await post.look(id)).status for id in (held, again)] == ["uncertain", "sent"]
        assert [sink.count((await post.look(id)).message_id) for id in (held, again)] == [1, 2]


async def test_a_mail_that_expired_is_never_sent(post: Post) -> None:
    id = await post.enqueue(expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await post.sql("UPDATE messages SET expires_at = clock_timestamp() - interval '1 s'")
    await post.work(id)
    await post.bench.sweep()
    assert (await post.look(id)).status == "expired"
    assert (await post.events(id))[-1].event == "expired"
    assert post.sink.mails == []


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


@contextmanager
def checkouts() -> Iterator[list[int]]:
    """Counts the connections that are borrowed, from whichever pool: one for each statement outside a transaction."""
    seen: list[int] = []

    def count(*_: Any) -> None:
        seen.append(1)

    event.listen(Pool, "checkout", count)
    try:
        yield seen
    finally:
        event.remove(Pool, "checkout", count)


async def test_no_address_is_logged_not_even_in_the_servers_words(
    post_to: MakePost, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = {"rcpt": [Rule("550 5.1.1 <ada@example.org>: no such user", times=1), Rule("450 4.2.0 <ada@example.org>")]}
    async with Sink(rules) as sink, post_to(sink) as post:
        for to, status in (("ada@example.org", "failed"), ("bob@example.org", "queued")):
            id = await post.enqueue(to=to)
            await post.work(id)
            found = await post.look(id)
            assert found.status == status
            assert found.error is not None
            assert "<ada@example.org>" in found.error.detail
    said = capsys.readouterr()
    assert "task_dead" in said.out + said.err
    assert "example.org" not in said.out + said.err
