"""Postgres dies, freezes, fills up and loses its answers: 503 at once, one row for a key, and well again by itself."""

import asyncio
import contextlib
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from callboard_workers.ledger.fences import MARGIN
from service.dev.chaos.fleet import by_hand
from service.dev.chaos.sink import Rule
from service.dev.chaos.site import LEASE, Site
from tests.faults.judging import hand_in, judge, received, row, sent

pytestmark = pytest.mark.asyncio(loop_scope="module")


def refused(answer: httpx.Response) -> None:
    """A refusal that says when to come back, and came at once."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"].startswith("application/problem+json")


async def ask(site: Site, key: str) -> httpx.Response:
    """One try to hand in a mail under this key."""
    body = {"to": f"{key}@example.org", "subject": "Tides", "text": f"Mail {key}.\n", "lane": "default"}
    return await site.caller.client.post("/v1/emails", json=body, headers={"Idempotency-Key": key})


async def test_killed_under_load_a_key_makes_one_row_and_all_comes_back_by_itself(site: Site) -> None:
    jobs = asyncio.create_task(hand_in(site, 80))
    await asyncio.sleep(0.2)
    await by_hand(site.stack.postgres.kill)
    began = time.monotonic()
    refused(await ask(site, "gone"))
    took = time.monotonic() - began
    print(f"refused after {took:.2f} s")
    assert took < 20  # a second, and what a loaded machine adds
    await asyncio.sleep(0.5)
    await by_hand(site.stack.postgres.start)
    await site.caller.send("gone")
    await jobs
    await judge(site)


async def test_the_answer_to_a_commit_is_lost_and_the_same_key_finds_its_one_row(site: Site) -> None:
    key = "unheard"
    proxy = site.proxies["api_db"]
    proxy.cut_at(b"unheard@example.org", passing=True)
    answer = await ask(site, key)
    assert answer.status_code == 503, "the answer was not lost: this test proves nothing"
    proxy.heal()
    stored = await site.books.fetch("SELECT id FROM emails WHERE recipients[1] = 'unheard@example.org'")
    assert len(stored) == 1
    await site.caller.send(key)
    assert site.caller.accepted[key] == {stored[0]["id"]}
    await judge(site)


async def test_without_a_free_connection_it_is_503_and_well_again_after(site: Site) -> None:
    site.proxies["api_db"].cut()  # the API has to dial anew
    limit = int((await site.books.fetch("SHOW max_connections"))[0]["max_connections"])
    holders: list[asyncpg.Connection] = []
    try:
        while len(holders) < limit:
            holders.append(await asyncpg.connect(site.books.database_url))
    except asyncpg.TooManyConnectionsError:
        pass
    try:
        refused(await ask(site, "full"))
        health = await site.caller.client.get("/health/ready")
        assert health.status_code == 503
        assert all(worker.alive for worker in site.fleet.workers)
    finally:
        await asyncio.gather(*(each.close() for each in holders))
    await site.caller.send("full")
    await sent(site, await hand_in(site, 10))
    await judge(site)


async def test_a_table_locked_for_longer_than_a_lease_is_waited_for(site: Site) -> None:
    site.sink.rules["data"] = [Rule(delay=0.3, times=20)]
    ids = await hand_in(site, 20)
    holder = await asyncpg.connect(site.books.database_url)
    async with holder.transaction():
        await holder.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        answer = await ask(site, "locked")
        await asyncio.sleep(LEASE + 1)
    await holder.close()
    refused(answer)
    await sent(site, ids)
    await site.caller.send("locked")
    await judge(site)


@contextlib.contextmanager
def frozen(site: Site) -> Iterator[None]:
    """Every process of Postgres stopped: connections stay open and nothing responds."""
    server = site.stack.postgres.pid
    every = [server, *map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())]
    try:
        for pid in every:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in every:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_frozen_it_is_refused_and_nothing_is_sent_twice(site: Site) -> None:
    jobs = asyncio.create_task(hand_in(site, 40))
    await asyncio.sleep(0.2)
    with frozen(site):
        for number in range(3):
            refused(await ask(site, f"frozen-{number}"))
    await jobs
    for number in range(3):  # what lay in a socket may be stored after the 503: the same key must get that row
        await site.caller.send(f"frozen-{number}")
    await judge(site)


async def test_a_fence_whose_answer_is_lost_leaves_no_doubt(site: Site) -> None:
    """Postgres has written intent; the worker never heard, so it never wrote the dot, and it knows that."""
    proxy = site.proxies["db"]
    proxy.cut_at(struct.pack(">id", 8, MARGIN), passing=True)  # the parameter that only a fence has, on the wire
    (id,) = await hand_in(site, 1)

    async def unanswered() -> bool:
        notes = await site.books.fetch("SELECT outcome FROM message_attempts WHERE message_id = $1", id)
        return "snooze" in {note["outcome"] for note in notes}

    await site.until(unanswered, "the fence is not answered")
    proxy.heal()
    await sent(site, [id])
    mail = await row(site, id)
    assert mail.epoch >= 2
    assert received(site, mail) == 1
    await judge(site)
