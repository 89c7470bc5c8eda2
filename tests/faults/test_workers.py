"""Workers die, freeze and stop at the worst moments: nothing is lost, nothing is sent twice."""

import asyncio
import random
import signal
from uuid import UUID

import pytest

from service.dev.chaos.fleet import by_hand
from service.dev.chaos.sink import Rule
from service.dev.chaos.site import Site
from tests.faults.judging import eventually, hand_in, hand_in_to, in_state, judge, received, row, said, sent, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_kill_9_in_the_midst_of_mail_again_and_again(site: Site) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for worker in [*site.fleet.workers, site.fleet.workers[0]]:
        jobs = asyncio.create_task(hand_in(site, 40))
        await asyncio.sleep(dice.uniform(0.05, 0.6))
        await by_hand(worker.kill)
        await by_hand(worker.start)
        await jobs
    await judge(site)


@pytest.mark.parametrize("heard", [False, True], ids=["before the yes", "between the yes and its settlement"])
async def test_a_worker_killed_past_the_dot_forgets_no_deferred_recipient(site: Site, heard: bool) -> None:
    site.sink.rules["dot"] = [Rule(delay=1.5, accept=True, times=1)]
    before = len(site.sink.mails)
    id = await hand_in_to(site, "there", "deferred", "refused")
    await eventually(lambda: len(site.sink.mails) > before, "the server has it")
    site.proxies["db"].blackhole()  # what becomes of it cannot be stored
    await asyncio.sleep(2.5 if heard else 0)
    for worker in site.fleet.workers:
        await by_hand(worker.kill)
    site.proxies["db"].heal()
    for worker in site.fleet.workers:
        await by_hand(worker.start)
    await site.books.lapse([id])
    await until(site, [id], in_state("uncertain"), "the outcome is unknown", 90)
    seen = await judge(site)
    assert sorted(seen.rows[id].replies.values()) == ["deferred", "refused"]
    (rest,) = [each for each in seen.rows.values() if each.follows == id]
    assert rest.state == "done"
    assert [seen.received.get((rest.message_id, address), 0) for address in seen.rows[id].recipients] == [1, 1, 0]


async def test_sigterm_under_load_ends_with_0_leaves_no_doubt_and_sends_nothing_afterwards(site: Site) -> None:
    first, second = site.fleet.workers
    await by_hand(second.kill)
    jobs = asyncio.create_task(hand_in(site, 100))
    await eventually(lambda: len(site.sink.mails) % 7 == 3 or jobs.done(), "mail flows")
    first.signal(signal.SIGTERM)
    assert await by_hand(first.ended, 60) == 0
    at_its_end = len(site.sink.mails)
    ids = await jobs
    await asyncio.sleep(0.5)
    assert len(site.sink.mails) == at_its_end
    rows = await site.books.rows()
    assert {rows[id].state for id in ids} <= {"queued", "done"}
    await by_hand(first.start)
    await sent(site, ids)
    await by_hand(second.start)
    await judge(site)


async def test_sigterm_before_a_slow_server_replies_to_the_dot_leaves_no_outcome_unknown(site: Site) -> None:
    """The server takes its time with each final dot: none is written after SIGTERM, each that was is waited for."""
    first, second = site.fleet.workers
    await by_hand(second.kill)
    answers = asyncio.Event()
    site.sink.rules["dot"] = [Rule(until=answers, accept=True)]
    ids = await hand_in(site, 30)

    async def fenced() -> set[UUID]:
        rows = await site.books.rows()
        return {id for id in ids if rows[id].intent}

    async def some_are() -> bool:
        return len(await fenced()) >= 5

    await site.until(some_are, "some wait for the reply to their dot")
    first.signal(signal.SIGTERM)
    await until(site, ids, lambda mail: mail.state == "queued" or mail.intent, "what has no fence is given back")
    at_the_dot = await fenced()
    await asyncio.sleep(1)
    assert first.alive
    assert await fenced() == at_the_dot
    answers.set()
    assert await by_hand(first.ended, 60) == 0
    rows = await site.books.rows()
    assert {id for id in ids if rows[id].state == "done"} == at_the_dot
    assert {rows[id].state for id in ids} == {"done", "queued"}
    site.sink.rules.clear()
    await by_hand(first.start)
    await sent(site, ids)
    assert {received(site, mail) for id, mail in (await site.books.rows()).items() if id in ids} == {1}
    await by_hand(second.start)
    await judge(site)


async def test_sigkill_before_sigterm_is_done(site: Site) -> None:
    jobs = asyncio.create_task(hand_in(site, 60))
    await asyncio.sleep(0.3)
    for worker in site.fleet.workers:
        worker.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        await by_hand(worker.kill)
        await by_hand(worker.start)
    await jobs
    await judge(site)


async def test_a_zombie_that_lost_its_lease_never_writes_the_dot(site: Site) -> None:
    """It is frozen while the server makes it wait for 354; the mail goes to another; then it wakes up."""
    first, second = site.fleet.workers
    await by_hand(second.kill)
    site.sink.rules["data"] = [Rule(delay=1.0, times=1)]
    before = said(site, "DATA")
    (id,) = await hand_in(site, 1)
    await eventually(lambda: said(site, "DATA") > before, "it waits for 354")
    first.pause()
    await by_hand(second.start)
    await sent(site, [id])
    first.resume()
    await asyncio.sleep(2)
    mail = await row(site, id)
    assert received(site, mail) == 1
    assert mail.epoch == 2
    await judge(site)


async def test_frozen_between_fence_and_dot_it_is_in_doubt_and_never_sent_by_another(site: Site) -> None:
    first, second = site.fleet.workers
    await by_hand(second.kill)
    site.sink.rules["data"] = [Rule(delay=0.5, times=1)]
    (id,) = await hand_in(site, 1)
    await until(site, [id], in_state("running"), "it runs")
    site.proxies["db"].latency = 0.7  # the fence takes so long each way

    async def fenced() -> bool:
        return (await row(site, id)).intent

    await site.until(fenced, "intent is announced")
    first.pause()
    site.proxies["db"].heal()
    await by_hand(second.start)
    async with asyncio.timeout(60):
        while (
            await row(site, id)
        ).state == "running":  # again: the line was slow, so the worker's last word may be late
            await site.books.lapse([id])
            await asyncio.sleep(0.5)
    assert (await row(site, id)).state == "uncertain"
    assert received(site, await row(site, id)) == 0
    first.resume()
    await asyncio.sleep(2)
    mail = await row(site, id)
    assert received(site, mail) <= 1
    # its fence was answered late, so it wrote the dot; or too late, so it knows that it wrote none; or it did not say
    assert mail.state in {"done", "queued", "running", "uncertain"}
    await judge(site)


async def test_an_email_that_kills_its_workers_is_quarantined_and_the_others_are_sent(site: Site) -> None:
    """The mail server falls silent at its recipient, and the worker that sends it dies of that: each time, at once."""
    for worker in site.fleet.workers[1:]:
        await by_hand(worker.kill)
    worker = site.fleet.workers[0]
    deadly = "poison@example.org"
    site.sink.rules["rcpt"] = [Rule(then="hang", when=deadly)]
    site.sink.rules["data"] = [Rule(delay=0.5)]

    def tried() -> int:
        return sum(deadly in line for session in site.sink.sessions for line in session.lines)

    others = await hand_in(site, 30)
    await site.caller.send("poison")
    [id] = site.caller.accepted["poison"]
    for death in range(1, 30):
        await eventually(lambda death=death: tried() >= death, f"it is tried for the {death}. time")
        await by_hand(worker.kill)
        held = [each for each, mail in (await site.books.rows()).items() if mail.state == "running"]
        await site.books.lapse(held)
        await by_hand(worker.start)
        if death > 3:
            await until(site, [id], lambda mail: mail.state in {"dead", "running"}, "it is quarantined or runs again")
        if (await row(site, id)).state == "dead":
            break
    mail = await row(site, id)
    assert (mail.state, "Quarantined" in mail.error) == ("dead", True)
    await sent(site, others)
    site.sink.rules.clear()
    assert await site.books.requeue_quarantined() >= 1
    await sent(site, [id])
    await judge(site)


async def test_an_api_killed_between_its_answer_and_the_doorbell_loses_nothing(site: Site) -> None:
    await by_hand(site.stack.valkey.kill)  # so that no doorbell can leave
    try:
        ids = await hand_in(site, 20)
        await by_hand(site.fleet.api.kill)
    finally:
        await by_hand(site.stack.valkey.start)
    await site.books.make_due()
    await by_hand(site.fleet.api.start)
    await sent(site, ids)
    await judge(site)
