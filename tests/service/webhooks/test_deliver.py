"""Deliveries reach a receiver that is slow, broken, hostile or gone for days; or say why they did not."""

import asyncio
from datetime import UTC, datetime, timedelta

from callboard_workers.policy import DeadLetter, Done, RetryAt, Snoozed, word
from service.webhooks.actors import forget
from service.webhooks.health import IN_A_ROW
from service.webhooks.models import SLOTS
from service.webhooks.schedule import PAUSES
from tests.service.egress.scripted import endless, held, reply, say
from tests.service.webhooks.conftest import OpenDesk, Sql
from tests.service.webhooks.standard import verified


async def test_a_failed_attempt_is_told_and_the_next_one_bears_the_same_id_and_body(open_desk: OpenDesk) -> None:
    async with open_desk(reply(500, b"oops \x00"), reply(302, Location="http://169.254.169.254/"), reply(200)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent")
        [first] = await desk.work()
        assert isinstance(first, RetryAt)
        assert 5 <= first.delay < 6
        [waiting] = await desk.deliveries(endpoint, status="pending")
        assert (waiting["last_status"], waiting["error"]["code"]) == (500, "refused-by-endpoint")
        assert waiting["error"]["retryable"] is True
        [second], [third] = await desk.work(), await desk.work()
        assert (word(second), word(third)) == ("retry", "done")
        seen = desk.server.seen
        assert len({each.headers["webhook-id"] for each in seen}) == 1
        assert len({each.body for each in seen}) == 1
        assert all(verified(each, endpoint["secret"]) for each in seen)
        [told] = await desk.deliveries(endpoint, status="delivered", type="email.sent")
        found = (await desk.api.get(f"/v1/webhooks/{endpoint['id']}/deliveries/{told['id']}")).json()
    assert [(each["outcome"], each["status"]) for each in found["history"]] == [
        ("failed", 500), ("failed", 302), ("delivered", 200),
    ]  # fmt: skip
    assert found["history"][0]["body"] == "oops \ufffd"
    assert all(each["ms"] > 0 for each in found["history"])
    assert (found["attempts"], found["error"], found["last_status"]) == (3, None, 200)
    assert found["payload"]["type"] == "email.sent"


async def test_410_disables_the_endpoint_and_cancels_what_waits(open_desk: OpenDesk) -> None:
    async with open_desk(reply(410)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent", 3)
        first, *_ = await desk.waiting()
        assert isinstance(await desk.attempt(first), DeadLetter)
        assert await desk.waiting() == []
        told = await desk.look(endpoint)
        assert (told["enabled"], "410" in told["disabled_reason"]) == (False, True)
        assert sorted(each["status"] for each in await desk.deliveries(endpoint)) == ["canceled", "canceled", "failed"]
        await desk.happen("sent")
        assert await desk.waiting() == []
    assert len(desk.server.seen) == 1


async def test_after_ten_attempts_a_delivery_is_given_up_and_can_be_put_back(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk(reply(503)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent")
        for _ in PAUSES:
            [outcome] = await desk.work()
            assert isinstance(outcome, RetryAt)
            await sql("UPDATE webhook_endpoints SET resting_until = NULL")
        [last] = await desk.work()
        assert isinstance(last, DeadLetter)
        [told] = await desk.deliveries(endpoint, status="failed")
        assert told["attempts"] == len(PAUSES) + 1
        place = f"/v1/webhooks/{endpoint['id']}/deliveries/{told['id']}/redeliver"
        again = await desk.api.post(place)
        assert (again.status_code, again.json()["id"], again.json()["status"]) == (202, told["id"], "pending"), (
            again.text
        )
        await sql("UPDATE webhook_endpoints SET resting_until = NULL")
        [outcome] = await desk.work()
        assert isinstance(outcome, RetryAt), "it has all its attempts again"
        assert 5 <= outcome.delay < 6
        desk.server.script = [reply(200)]
        await sql("UPDATE webhook_endpoints SET resting_until = NULL")
        [outcome] = await desk.work()
        assert isinstance(outcome, Done)
    assert len({each.headers["webhook-id"] for each in desk.server.seen}) == 1


async def test_an_endpoint_that_fails_in_a_row_rests_and_one_call_finds_out(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk(reply(500)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent", IN_A_ROW + 3)
        outcomes = await desk.work()
        assert [word(each) for each in outcomes] == ["retry"] * IN_A_ROW + ["snooze"] * 3
        assert isinstance(outcomes[-1], Snoozed)
        assert len(desk.server.seen) == IN_A_ROW, "a resting endpoint is left alone"
        late = await sql("SELECT m.id FROM messages m, webhook_endpoints w WHERE m.due_at < w.resting_until")
        assert late == [], "and what waits for it is not taken up before its time"
        await sql("UPDATE webhook_endpoints SET resting_until = clock_timestamp() - interval '1 s'")
        desk.server.script = [reply(500)]
        assert sorted(word(each) for each in await desk.work()) == ["retry", *["snooze"] * (IN_A_ROW + 2)]
        await sql("UPDATE webhook_endpoints SET resting_until = clock_timestamp() - interval '1 s'")
        desk.server.script = [reply(200)]
        assert {word(each) for each in await desk.work()} == {"done"}, "one call went well, and the rest is over"
        assert (await desk.look(endpoint))["failing_since"] is None


async def test_after_days_of_failures_an_endpoint_is_disabled_and_what_it_missed_comes_again(
    open_desk: OpenDesk, sql: Sql
) -> None:
    async with open_desk(reply(500)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent", 4)
        first, *_ = await desk.waiting()
        await desk.attempt(first)
        await sql("UPDATE webhook_endpoints SET failing_since = clock_timestamp() - interval '6 days'")
        assert len(await desk.work()) == 4
        told = await desk.look(endpoint)
        assert (told["enabled"], "Every call has failed since" in told["disabled_reason"]) == (False, True)
        assert await desk.waiting() == []
        place = f"/v1/webhooks/{endpoint['id']}"
        assert (await desk.api.patch(place, json={"enabled": True})).json()["failing_since"] is None
        desk.server.script, before = [reply(200)], len(desk.server.seen)
        since = {"since": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
        again = await desk.api.post(f"{place}/redeliver", json=since)
        assert (again.status_code, again.json()) == (202, {"queued": 4, "more": False})
        assert (await desk.api.post(f"{place}/redeliver", json=since)).json()["queued"] == 0, "they are under way"
        assert {word(each) for each in await desk.work()} == {"done"}
        assert (await desk.api.post(f"{place}/redeliver", json=since)).json()["queued"] == 0, "nothing is missing"
        everything = await desk.api.post(f"{place}/redeliver", json=since | {"all": True})
        assert everything.json()["queued"] == 4
    assert len(desk.server.seen) == before + 4


async def test_what_was_delivered_is_delivered_anew_and_what_waits_is_brought_forward(
    open_desk: OpenDesk, sql: Sql
) -> None:
    async with open_desk(reply(200), reply(500), reply(200)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent")
        await desk.work()
        [told] = await desk.deliveries(endpoint)
        place = f"/v1/webhooks/{endpoint['id']}/deliveries"
        again = (await desk.api.post(f"{place}/{told['id']}/redeliver")).json()
        assert (again["id"] != told["id"], again["event_id"]) == (True, told["event_id"])
        await desk.work()
        [waiting] = await sql("SELECT id FROM messages WHERE due_at > clock_timestamp() + interval '1 s'")
        hastened = await desk.api.post(f"{place}/{again['id']}/redeliver")
        assert (hastened.status_code, hastened.json()["id"]) == (202, f"dl_{waiting['id'].hex}")
        assert await sql("SELECT id FROM messages WHERE due_at > clock_timestamp() + interval '1 s'") == []
        await desk.work()
    assert len({each.headers["webhook-id"] for each in desk.server.seen}) == 1
    assert len(desk.server.seen) == 3


async def test_a_slow_endpoint_takes_its_own_slots_and_no_more(open_desk: OpenDesk) -> None:
    gate = asyncio.Event()
    async with open_desk(held(gate, reply(200))) as desk:
        await desk.endpoint("/slow", events=["email.sent"])
        await desk.endpoint("/quick", events=["email.failed"])
        await desk.happen("sent", SLOTS * 3)
        await desk.happen("failed", 2)
        admitted = [message.id for message in (await desk.runtime.ledger.sweep(desk.runtime.publisher.ring)).admitted]
        assert len(admitted) == SLOTS + 2, "the gate of each endpoint lets in its own"
        running = [asyncio.create_task(desk.attempt(id)) for id in admitted]
        await desk.server.wait(SLOTS + 2)
        assert sorted(each.path for each in desk.server.seen) == ["/quick"] * 2 + ["/slow"] * SLOTS
        gate.set()
        assert {word(each) for each in await asyncio.gather(*running)} == {"done"}


async def test_hostile_answers_are_failures_or_stand_for_their_status(open_desk: OpenDesk) -> None:
    huge = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 65_536)
    headers = endless(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 1000 + b"\r\n")
    async with open_desk(huge, headers, say(b"")) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent", 3)
        await desk.work()
        found = await desk.deliveries(endpoint)
        first = (await desk.api.get(f"/v1/webhooks/{endpoint['id']}/deliveries/{found[2]['id']}")).json()
    assert [each["status"] for each in found] == ["pending", "pending", "delivered"]
    assert [each["error"]["code"] for each in found[:2]] == ["protocol", "too-large"]
    assert len(first["history"][0]["body"]) == 2_000


async def test_what_waits_for_an_endpoint_that_is_gone_is_done_with(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        endpoint = await desk.endpoint()
        [_, id] = [*await desk.happen("sent"), *await desk.waiting()]
        await sql("UPDATE webhook_endpoints SET enabled = false")
        assert isinstance(await desk.attempt(id), Done)
        [told] = await desk.deliveries(endpoint)
        assert (told["status"], told["error"]["code"]) == ("canceled", "endpoint-disabled")
        await sql("UPDATE webhook_endpoints SET enabled = true")
        await desk.happen("sent")
        assert (await desk.api.delete(f"/v1/webhooks/{endpoint['id']}")).status_code == 204
        assert await desk.waiting() == []
    assert desk.server.seen == []


async def test_an_endpoint_that_goes_while_it_is_called_leaves_no_dead_letter(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk(reply(500)) as desk:
        endpoint = await desk.endpoint()
        await desk.happen("sent")
        [id] = await desk.waiting()
        await sql("UPDATE messages SET gate = NULL WHERE id = :id", id=id)  # as one that is running: not canceled
        assert (await desk.api.delete(f"/v1/webhooks/{endpoint['id']}")).status_code == 204
        assert isinstance(await desk.attempt(id), Done)
    assert desk.server.seen == []


async def test_deliveries_are_forgotten_with_their_tasks(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        await desk.endpoint()
        await desk.happen("sent", 2)
        old, _ = await desk.waiting()
        await sql("DELETE FROM messages WHERE id = :id", id=old)
        await sql("UPDATE webhook_deliveries SET id = '00000000-0000-7000-8000-000000000000' WHERE id = :id", id=old)
        await forget()
        left = await sql(
            "SELECT (SELECT count(*) FROM webhook_deliveries) AS d, (SELECT count(*) FROM webhook_events) AS e"
        )
    assert left == [{"d": 1, "e": 1}]
