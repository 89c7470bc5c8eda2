"""Emails of test keys and of the simulator's recipients: what becomes of them, in the order of live mode."""

from uuid import UUID

import pytest

from callboard_workers.execution.attempt import execute
from callboard_workers.ledger import State
from callboard_workers.message import Delivery
from callboard_workers.policy import Done
from callboard_workers.testing.crashes import Died
from tests.faults.sink import Rule, Sink
from tests.service.emails.postman import MakePost, Post

WAITING = "SELECT id FROM messages WHERE actor = 'emails.report_simulated' AND state = 'queued'"


async def report(post: Post) -> list[UUID]:
    """Run what waits to report; the ids of those messages."""
    waiting = [row["id"] for row in await post.sql(WAITING)]
    for id in waiting:
        doorbell = Delivery(id=id, actor="emails.report_simulated", durable=True)
        assert isinstance(await execute(post.bench.runtime, doorbell), Done)
    return waiting


async def happened(post: Post, id: UUID) -> list[str]:
    return [event.event for event in await post.events(id)]


@pytest.mark.parametrize(
    ("to", "statuses", "reported"),
    [
        ("delivered@simulator.callboard.test", ["sent"], "delivered"),
        ("bounced+7@simulator.callboard.test", ["sent"], "bounced"),
        ("complained@simulator.callboard.test", ["sent"], "complained"),
        ("refused+x@simulator.callboard.test", ["failed"], None),
        ("deferred@simulator.callboard.test", ["queued", "queued", "sent"], None),
        ("anybody@example.org", ["sent"], None),
    ],
)
async def test_mail_of_a_test_key_never_leaves_the_machine(
    post: Post, to: str, statuses: list[str], reported: str | None
) -> None:
    id = await post.enqueue(mode="test", to=to)
    for status in statuses:
        await post.work(id)
        assert (await post.look(id)).status == status
    assert len(await report(post)) == (reported is not None)
    assert (await post.look(id)).status == (reported or status)
    assert post.sink.sessions == []
    told = {event.event: event for event in await post.events(id)}
    assert [*told][-1] == (reported or status)
    assert status == "failed" or told["sent"].detail["simulated"]
    assert [row["address"] for row in await post.sql("SELECT address FROM suppressions WHERE mode = 'test'")] == (
        [to] if reported in {"bounced", "complained"} or status == "failed" else []
    )


async def test_mail_of_a_test_key_reaches_the_development_mailbox_but_not_for_magic_refusals(post_to: MakePost) -> None:
    async with Sink() as sink, post_to(sink, SMTP_MAILBOX="true") as post:
        await post.work(await post.enqueue(mode="test"))
        await post.work(await post.enqueue(mode="test", to="refused@simulator.callboard.test"))
        await post.work(await post.enqueue(to=["delivered@simulator.callboard.test"]))
        assert [mail.recipients for mail in sink.mails] == [["ada@example.org"], ["delivered@simulator.callboard.test"]]


async def test_only_those_that_accepted_the_email_report_and_others_keep_their_replies(post_to: MakePost) -> None:
    full, refused, good = (f"{word}@simulator.callboard.test" for word in ("bounced", "refused", "delivered"))
    rules = {"rcpt": [Rule("550 5.1.1 no such user", when=full)]}
    async with Sink(rules) as sink, post_to(sink, SMTP_MAILBOX="true") as post:
        id = await post.enqueue(mode="test", to=[full, refused, good])
        await post.work(id)
        assert len(await report(post)) == 1
        assert await happened(post, id) == ["accepted", *["recipient_refused"] * 2, "sent", "delivered"]


async def test_an_email_to_the_simulator_and_to_others_is_no_simulation_in_live_mode(post: Post) -> None:
    id = await post.enqueue(to=["delivered@simulator.callboard.test", "ada@example.org"])
    await post.work(id)
    assert (await report(post), len(post.sink.mails)) == ([], 1)


@pytest.mark.parametrize("at", ["before fence", "after fence", "before settle"])
async def test_a_worker_that_dies_loses_no_report_and_none_comes_before_sent(post: Post, at: str) -> None:
    id = await post.enqueue(mode="test", to="bounced@simulator.callboard.test")
    post.bench.crash(at)
    with pytest.raises(Died):
        await post.work(id)
    assert await report(post) == []
    await post.sql("UPDATE messages SET lease_until = clock_timestamp() - interval '1 h' WHERE state = 'running'")
    await post.bench.sweep()
    if at == "before fence":
        await post.work(id)
    else:
        assert ((await post.look(id)).status, await report(post)) == ("uncertain", [])
        async with post.engine.begin() as connection:
            await post.bench.runtime.ledger.resolve(connection, [id], State.DONE, by="operator")
    assert (await post.look(id)).status == "sent"
    [reporting] = await post.sql(WAITING)
    post.bench.crash("before settle")
    with pytest.raises(Died):
        await report(post)
    assert (await post.look(id)).status == "bounced"
    await post.sql("UPDATE messages SET lease_until = clock_timestamp() - interval '1 h' WHERE state = 'running'")
    await post.bench.sweep()
    await post.sql("UPDATE messages SET due_at = clock_timestamp() WHERE state = 'queued'")
    assert await report(post) == [reporting["id"]]
    assert (await happened(post, id)).count("bounced") == 1
