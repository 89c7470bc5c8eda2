"""What a server reports later settles the doubt about a mail, once, and only where there is one."""

from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from callboard_workers.ledger import State
from service.core.ids import email_id
from service.emails.reports.resolve_uncertain import Action, Evidence, Resolved, resolve
from tests.faults.sink import Rule, Sink
from tests.service.emails.postman import TENANT, MakePost, Post


async def doubtful(post: Post, **fields: object) -> UUID:
    """A mail that was taken, and whose server hung up before it said so."""
    id = await post.enqueue(**fields)
    post.sink.rules["dot"] = [Rule(then="close", accept=True, times=1)]
    await post.work(id)
    assert (await post.look(id)).status == "uncertain"
    return id


async def report(post: Post, evidence: Evidence, tenant_id: UUID | None = None) -> Resolved | None:
    async with post.engine.begin() as connection:
        return await resolve(connection, evidence, by="bounces@test", tenant_id=tenant_id)


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded", "delayed"])
async def test_whatever_says_that_the_server_has_it_makes_it_sent(post: Post, action: Action) -> None:
    id = await doubtful(post)
    mail = await post.look(id)
    found = await report(post, Evidence(action=action, message_id=mail.message_id, recipient="ada@example.org"))
    assert found == Resolved(id, State.DONE)
    mail = await post.look(id)
    assert (mail.status, mail.error) == ("sent", None)


async def test_a_bounce_makes_it_failed_and_its_events_say_what_was_reported(post: Post) -> None:
    id = await doubtful(post)
    mail = await post.look(id)
    bounce = Evidence(
        action="failed",
        message_id=mail.message_id,
        recipient="ADA@example.org",
        status="5.1.1",
        diagnostic="smtp; 550 no such user",
    )
    assert await report(post, bounce) == Resolved(id, State.DEAD)
    mail = await post.look(id)
    assert mail.status == "failed"
    assert mail.error is not None
    assert mail.error.code == "bounced"
    assert "5.1.1: smtp; 550 no such user" in mail.error.detail
    told = (await post.events(id))[-1]
    assert told.event == "resolved"
    assert told.detail["by"] == "bounces@test"
    assert told.detail["evidence"]["status"] == "5.1.1"


@pytest.mark.parametrize("spelled", ["em_{hex}", "{hex}", "{id}"])
async def test_a_mail_is_known_by_its_envid(post: Post, spelled: str) -> None:
    id = await doubtful(post)
    envid = spelled.format(hex=id.hex, id=id)
    assert await report(post, Evidence(action="delivered", envid=envid)) == Resolved(id, State.DONE)
    assert email_id(id).endswith(id.hex)


async def test_that_one_of_several_recipients_failed_proves_that_the_server_has_it(post: Post) -> None:
    id = await doubtful(post, cc=["bob@example.org"])
    mail = await post.look(id)
    bounce = Evidence(action="failed", message_id=mail.message_id, recipient="bob@example.org", status="5.1.1")
    assert await report(post, bounce) == Resolved(id, State.DONE)
    everybody = await doubtful(post, cc=["bob@example.org"])
    bounce = Evidence(action="failed", envid=email_id(everybody))
    assert await report(post, bounce) == Resolved(everybody, State.DEAD)


async def test_a_mail_that_follows_another_is_told_from_it_by_its_recipient(post_to: MakePost) -> None:
    """Two rows with one Message-ID: the first is sent, the one for the recipient that was put off is in doubt."""
    putting_off = Rule("450 4.2.1 later", when="bob@example.org", times=1)
    async with Sink({"rcpt": [putting_off]}) as sink, post_to(sink) as post:
        first = await post.enqueue(cc=["bob@example.org"])
        await post.work(first)
        [row] = await post.sql("SELECT id FROM emails WHERE follows = :id", id=first)
        sink.rules["dot"] = [Rule(then="close", accept=True, times=1)]
        await post.work(row["id"])
        assert (await post.look(row["id"])).status == "uncertain"
        message_id = (await post.look(first)).message_id
        found = await report(post, Evidence(action="delivered", message_id=message_id, recipient="bob@example.org"))
        assert found == Resolved(row["id"], State.DONE)


async def test_where_nothing_is_in_doubt_nothing_changes(post: Post) -> None:
    sent = await post.enqueue()
    await post.work(sent)
    waiting = await post.enqueue()
    doubted = await doubtful(post)
    for evidence in (
        Evidence(action="failed", envid=email_id(sent)),
        Evidence(action="delivered", envid=email_id(waiting)),
        Evidence(action="delivered", envid=email_id(uuid7())),
        Evidence(action="failed", message_id="<CAF+x=y@mail.example.net>"),
        Evidence(action="failed", message_id="", recipient="ada@example.org"),
    ):
        assert await report(post, evidence) is None
    assert await report(post, Evidence(action="delivered", envid=email_id(doubted)), tenant_id=uuid7()) is None
    assert [(await post.look(id)).status for id in (sent, waiting, doubted)] == ["sent", "queued", "uncertain"]
    assert await report(post, Evidence(action="delivered", envid=email_id(doubted)), tenant_id=TENANT) is not None


async def test_the_same_report_twice_counts_once(post: Post) -> None:
    id = await doubtful(post)
    evidence = Evidence(action="delivered", envid=email_id(id))
    assert await report(post, evidence) is not None
    assert await report(post, evidence) is None
    assert [event.event for event in await post.events(id)].count("resolved") == 1
