"""One email, several recipients: the server's reply for each is final, whatever becomes of the answer to the dot."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from callboard_workers.ledger import State
from callboard_workers.testing.crashes import Died
from service.core.ids import email_id
from service.emails.reports.resolve_uncertain import Evidence, resolve
from service.settings import Settings
from tests.faults.sink import Rule, Sink
from tests.service.conftest import MakeKey, client_of
from tests.service.emails.posting import execute_sql
from tests.service.emails.posting import post as accepted
from tests.service.emails.postman import MakePost, Post

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
RULES = {"bob": "451 4.7.1 greylisted", "eve": "550 5.1.1 no such user"}


@asynccontextmanager
async def mixed(post_to: MakePost, **dot: Any) -> AsyncIterator[tuple[Post, UUID]]:
    """An email to Ada, whom the server accepts, to Bob, whom it defers once, and to Eve, whom it refuses."""
    rcpt = [Rule(RULES["bob"], when=BOB, times=1), Rule(RULES["eve"], when=EVE)]
    rules = {"rcpt": rcpt, **({"dot": [Rule(**dot, times=1)]} if dot else {})}
    async with Sink(rules) as sink, post_to(sink) as post:
        yield post, await post.enqueue(to=[ADA, BOB], cc=[EVE])


async def continuation(post: Post, id: UUID) -> UUID:
    """The one email that follows this one."""
    [row] = await post.sql("SELECT id FROM emails WHERE follows = :id", id=id)
    found: UUID = row["id"]
    return found


async def statuses(post: Post, id: UUID) -> dict[str, str]:
    return {each.address: each.status for each in (await post.look(id)).recipients}


def copies(post: Post) -> list[list[str]]:
    return sorted(mail.recipients for mail in post.sink.mails)


async def as_done(post: Post, id: UUID) -> None:
    async with post.engine.begin() as connection:
        await post.bench.runtime.ledger.resolve(connection, [id], State.DONE, by="operator")


async def as_dead(post: Post, id: UUID) -> None:
    async with post.engine.begin() as connection:
        await post.bench.runtime.ledger.resolve(connection, [id], State.DEAD, by="operator")


async def by_delivery(post: Post, id: UUID) -> None:
    await _report(post, Evidence(action="delivered", envid=email_id(id), recipient=ADA))


async def by_bounce(post: Post, id: UUID) -> None:
    await _report(post, Evidence(action="failed", envid=email_id(id), recipient=ADA, status="5.1.1"))


async def _report(post: Post, evidence: Evidence) -> None:
    async with post.engine.begin() as connection:
        assert await resolve(connection, evidence, by="test") is not None


async def requeued(post: Post, id: UUID) -> None:
    assert await post.bench.runtime.ledger.requeue([id], by="operator") == {id}
    await post.work(id)


@pytest.mark.parametrize(
    ("settle", "ada", "copies_of_ada"),
    [(as_done, "sent", 1), (as_dead, "failed", 1), (by_delivery, "sent", 1), (by_bounce, "failed", 1),
     (requeued, "sent", 2)],
)  # fmt: skip
async def test_however_an_unknown_outcome_is_settled_the_deferred_recipient_is_sent_one_copy(
    post_to: MakePost, settle: Callable[[Post, UUID], Awaitable[None]], ada: str, copies_of_ada: int
) -> None:
    async with mixed(post_to, accept=True, then="close") as (post, id):
        await post.work(id)
        assert await statuses(post, id) == {ADA: "uncertain", BOB: "deferred", EVE: "refused"}
        follower = await continuation(post, id)
        await settle(post, id)
        await post.work(follower)
        assert await statuses(post, id) == {ADA: ada, BOB: "deferred", EVE: "refused"}
        assert await statuses(post, follower) == {BOB: "sent"}
        assert copies(post) == [*[[ADA]] * copies_of_ada, [BOB]]
        assert await continuation(post, id) == follower
        [found] = [each for each in (await post.look(id)).recipients if each.address == BOB]
        assert (found.reply, found.continued_by) == (RULES["bob"], email_id(follower))
        assert [row["address"] for row in await post.sql("SELECT address FROM suppressions")] == [EVE]


async def test_events_name_each_recipient_that_was_refused_or_deferred_though_the_answer_to_the_dot_is_lost(
    post_to: MakePost,
) -> None:
    async with mixed(post_to, accept=True, then="close") as (post, id):
        await post.work(id)
        accepted, *others, uncertain = await post.events(id)
        assert (accepted.event, uncertain.event) == ("accepted", "uncertain")
        assert {each.event: each.detail["recipient"] for each in others} == {
            "recipient_deferred": BOB,
            "recipient_refused": EVE,
        }
        assert uncertain.detail["refused"] == {BOB: RULES["bob"], EVE: RULES["eve"]}


@pytest.mark.parametrize("at", ["after fence", "before settle"])
async def test_a_worker_that_dies_past_the_fence_loses_no_deferred_recipient(post_to: MakePost, at: str) -> None:
    async with mixed(post_to) as (post, id):
        post.bench.crash(at)
        with pytest.raises(Died):
            await post.work(id)
        await post.sql("UPDATE messages SET lease_until = clock_timestamp() - interval '1 h' WHERE state = 'running'")
        await post.bench.sweep()
        assert await statuses(post, id) == {ADA: "uncertain", BOB: "deferred", EVE: "refused"}
        await post.work(await continuation(post, id))
        await as_done(post, id)
        assert copies(post) == ([[BOB]] if at == "after fence" else [[ADA], [BOB]])


async def test_a_definite_no_to_the_dot_tries_each_recipient_by_itself_once(post_to: MakePost) -> None:
    async with mixed(post_to, say="451 4.3.0 later") as (post, id):
        await post.work(id)
        assert await statuses(post, id) == {ADA: "queued", BOB: "deferred", EVE: "refused"}
        await post.work(id)
        await post.work(await continuation(post, id))
        assert copies(post) == [[ADA], [BOB]]
        assert sum(f"<{EVE}>" in line for session in post.sink.sessions for line in session.lines) == 1


async def test_before_the_fence_nothing_is_final(post_to: MakePost) -> None:
    async with mixed(post_to) as (post, id):
        post.sink.rules["data"] = [Rule("451 4.3.2 not now", times=1)]
        await post.work(id)
        assert await post.sql("SELECT 1 FROM emails WHERE follows IS NOT NULL") == []
        await post.work(id)  # Bob was deferred once only
        assert copies(post) == [[ADA, BOB]]


async def test_an_attempt_that_lost_its_lease_stores_no_reply(post_to: MakePost) -> None:
    async with mixed(post_to) as (post, id):
        post.sink.rules["data"] = [Rule(delay=1, times=1)]
        working = asyncio.create_task(post.work(id))
        while not post.sink.sessions or "DATA" not in post.sink.sessions[0].verbs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await post.sql("UPDATE messages SET lease_until = clock_timestamp() WHERE state = 'running'")
        await asyncio.gather(working, return_exceptions=True)
        assert await post.sql("SELECT 1 FROM emails WHERE recipient_replies IS NOT NULL OR follows IS NOT NULL") == []
        assert copies(post) == []


async def test_a_recipient_deferred_again_and_again_keeps_one_email_of_its_own(post_to: MakePost) -> None:
    rcpt = [Rule(RULES["bob"], when=BOB, times=3), Rule(RULES["bob"], when=EVE, times=1)]
    async with Sink({"rcpt": rcpt}) as sink, post_to(sink) as post:
        id = await post.enqueue(to=[ADA, BOB, EVE])
        await post.work(id)
        second = await continuation(post, id)
        await post.work(second)  # Eve is accepted, Bob is not
        third = await continuation(post, second)
        for _ in range(2):
            await post.work(third)
        assert copies(post) == [[ADA], [BOB], [EVE]]
        assert await statuses(post, second) == {BOB: "deferred", EVE: "sent"}
        assert len({mail.message_id for mail in sink.mails}) == 1


async def test_a_deferred_recipient_is_retried_when_its_reply_says(post_to: MakePost) -> None:
    async with Sink({"rcpt": [Rule("452 4.2.2 over quota", when=BOB)]}) as sink, post_to(sink) as post:
        id = await post.enqueue(to=[ADA, BOB])
        await post.work(id)
        [row] = await post.sql(
            "SELECT extract(epoch FROM due_at - clock_timestamp()) AS wait, state"
            " FROM messages JOIN emails USING (id) WHERE follows = :id",
            id=id,
        )
        assert row["state"] == "queued"
        assert 800 < row["wait"] <= 1_800, "a full mailbox"


async def test_the_console_lists_the_recipients_of_an_email_with_status_and_reply(
    settings: Settings, make_key: MakeKey
) -> None:
    async with client_of(settings) as api:
        key = await make_key("*", "operator")
        api.headers["Authorization"] = f"Bearer {key}"
        email = await accepted(api, to=[ADA, BOB])
        other = email_id(uuid7())
        reply = {
            "status": "deferred",
            "reply": "451 <b>later</b>",
            "continued_by": other[3:],
            "at": "2026-01-12T08:30:00+00:00",
        }
        await execute_sql(
            "UPDATE emails SET recipient_replies = jsonb_build_object(CAST(:bob AS text), CAST(:reply AS jsonb))",
            bob=BOB,
            reply=json.dumps(reply),
        )
        assert [each["status"] for each in (await api.get(f"/v1/emails/{email['id']}")).json()["recipients"]] == [
            "queued",
            "deferred",
        ]
        await api.post("/console/sign-in", data={"key": key})
        del api.headers["Authorization"]
        shown = (await api.get(f"/console/emails/{email['id'][3:]}")).text
    table = shown.partition("<h2>Recipients</h2>")[2].partition("</table>")[0]
    assert "451 &lt;b&gt;later&lt;/b&gt;" in table
    assert f'href="/console/emails/{other[3:]}"' in table
    assert (ADA in table, BOB in table, "deferred" in table) == (True, True, True)
