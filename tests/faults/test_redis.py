"""Redis dies, freezes, fills up and forgets: the API accepts, and the mail is delivered when it is back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from uuid_utils.compat import uuid7

from service.dev.chaos.fleet import by_hand
from service.dev.chaos.site import Site
from service.dev.valkey import Valkey
from tests.faults.judging import eventually, hand_in, judge, received, row, sent

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def configured(site: Site, **settings: str) -> AsyncIterator[redis.Redis]:
    """Redis with these settings, and with its own again afterwards."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    with redis.Redis.from_url(site.stack.redis_url, decode_responses=True) as server:
        before = {name: server.config_get(name)[name] for name in names}
        for name, value in names.items():
            server.config_set(name, value)
        try:
            yield server
        finally:
            for name, value in before.items():
                server.config_set(name, value)


async def test_killed_it_refuses_no_mail_and_delivers_when_it_is_back(site: Site) -> None:
    await by_hand(site.stack.valkey.kill)
    try:
        ids = await hand_in(site, 30)
    finally:
        await by_hand(site.stack.valkey.start)
    assert site.caller.answers["202"] >= 30
    await sent(site, ids)
    await judge(site)


async def test_frozen_it_holds_up_no_answer(site: Site) -> None:
    """Neither of mail, nor of what is asked meanwhile: each waits for Redis for a moment at most."""
    site.stack.valkey.pause()
    try:
        async with asyncio.timeout(30):
            ids = await hand_in(site, 20)
        task = f"/v1/tasks/{ids[0]}"
        for path in (task, "/v1/queues", "/v1/emails", "/v1/dead-letters", "/health/ready", "/metrics"):
            async with asyncio.timeout(20):  # a second, and what a loaded machine adds
                answer = await site.caller.client.get(path)
            assert answer.status_code == 200, (path, answer.text)
    finally:
        site.stack.valkey.resume()
    await sent(site, ids)
    await judge(site)


async def test_emptied_again_and_again_while_mail_flows_it_loses_none(site: Site) -> None:
    jobs = asyncio.create_task(hand_in(site, 60))
    for _ in range(5):
        await asyncio.sleep(0.1)
        await site.books.flush()
    ids = await jobs
    await site.books.flush()
    await sent(site, ids)
    await judge(site)


async def test_full_it_refuses_no_mail_and_delivers_when_there_is_room(site: Site) -> None:
    async with configured(site, maxmemory="1", maxmemory_policy="noeviction"):
        ids = await hand_in(site, 20)
        assert all(worker.alive for worker in site.fleet.workers)
    await site.books.make_due()
    await sent(site, ids)
    await judge(site)


async def test_a_wrong_eviction_policy_costs_doorbells_and_no_mail(site: Site) -> None:
    async with configured(site, maxmemory="1", maxmemory_policy="allkeys-lru"):
        ids = await hand_in(site, 20)
    await site.books.make_due()
    await sent(site, ids)
    await judge(site)


async def test_swapped_for_an_empty_database_it_loses_no_mail(site: Site) -> None:
    site.stack.valkey.pause()  # so that the doorbells are still on their way
    jobs = asyncio.create_task(hand_in(site, 10))
    await asyncio.sleep(0.3)
    site.stack.valkey.resume()
    with redis.Redis.from_url(site.stack.redis_url) as server:
        server.swapdb(0, 1)
    ids = await jobs
    await site.books.make_due()
    await sent(site, ids)
    with redis.Redis.from_url(site.stack.redis_url) as server:
        server.swapdb(0, 1)  # everything that was rung before is back, and stale
    await judge(site)


async def test_a_replica_that_missed_the_last_writes_is_promoted(site: Site, tmp_path: Path) -> None:
    replica = Valkey(tmp_path / "replica")
    await by_hand(replica.start)
    proxy = site.proxies["redis"]
    ours, proxy.upstream = proxy.upstream, ("127.0.0.1", replica.port)
    try:
        with redis.Redis(port=replica.port) as server:
            server.replicaof("127.0.0.1", str(site.stack.valkey.port))
            await eventually(lambda: server.info("replication")["master_link_status"] == "up", "the replica follows")
            server.replicaof("NO", "ONE")
        ids = await hand_in(site, 20)  # the API still rings the old one: those doorbells are lost
        proxy.cut()
        await site.books.make_due()
        await sent(site, ids)
    finally:
        proxy.upstream = ours
        proxy.cut()
        await by_hand(replica.stop)
    await judge(site)


async def test_doorbells_thrice_stale_and_of_mails_that_never_were_send_nothing_twice(site: Site) -> None:
    early = await hand_in(site, 20)
    await sent(site, early)
    jobs = asyncio.create_task(hand_in(site, 20))
    for _ in range(5):
        await site.books.ring(site.caller.ids * 3 + [uuid7() for _ in range(20)])
        await asyncio.sleep(0.1)
    ids = await jobs
    await sent(site, ids)
    for id in ids:
        assert received(site, await row(site, id)) == 1
    await judge(site)
