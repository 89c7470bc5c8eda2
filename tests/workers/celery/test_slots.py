"""Slots: first come first served, and they may grow and shrink while taken."""

from __future__ import annotations

import asyncio

from callboard_workers.celery.slots import Slots


async def test_a_full_house_makes_one_wait_and_gives_way_in_order() -> None:
    slots = Slots(1)
    await slots.take()
    order: list[int] = []

    async def guest(number: int) -> None:
        await slots.take()
        order.append(number)
        slots.give_back()

    guests = [asyncio.create_task(guest(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    slots.give_back()
    await asyncio.gather(*guests)
    assert order == [0, 1, 2]
    assert slots.taken == 0


async def test_growing_admits_and_shrinking_throws_nobody_out() -> None:
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.resize(2)
    await waiting
    slots.resize(1)
    assert (slots.taken, slots.free) == (2, 0)
    slots.give_back()
    assert slots.free == 0
    slots.give_back()
    assert slots.free == 1


async def test_a_guest_who_leaves_the_queue_takes_no_place() -> None:
    slots = Slots(1)
    await slots.take()
    leaver = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    slots.give_back()
    await asyncio.wait_for(slots.take(), 1)
    assert slots.taken == 1
