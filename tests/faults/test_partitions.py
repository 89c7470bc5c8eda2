"""Lines that carry nothing for a while, between any two of the parts: nothing is lost, nothing is sent twice."""

import asyncio

import pytest

from service.dev.chaos.sink import Rule
from service.dev.chaos.site import LEASE, Site
from tests.faults.judging import eventually, hand_in, judge, received, row, said, sent

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("name", ["api_db", "db", "redis", "smtp"])
async def test_a_partition_heals(site: Site, name: str) -> None:
    proxy = site.proxies[name]
    jobs = asyncio.create_task(hand_in(site, 40))
    await asyncio.sleep(0.2)
    proxy.blackhole()
    await asyncio.sleep(LEASE + 1 if name == "db" else 2)
    proxy.heal()
    proxy.cut()
    await jobs
    await judge(site)


async def test_cut_off_from_postgres_before_the_dot_nothing_is_sent_and_afterwards_once(site: Site) -> None:
    """The body is on the wire, the fence cannot be asked: no dot, however long it takes."""
    proxy = site.proxies["db"]
    site.sink.rules["data"] = [Rule(delay=1.0, times=1)]
    before = said(site, "DATA")
    (id,) = await hand_in(site, 1)
    await eventually(lambda: said(site, "DATA") > before, "it waits for 354")
    proxy.blackhole()
    await asyncio.sleep(LEASE + 1)
    assert received(site, await row(site, id)) == 0
    proxy.heal()
    proxy.cut()
    await sent(site, [id])
    assert received(site, await row(site, id)) == 1
    await judge(site)
