"""Waits of one length share a timer, and each ends when it should."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard_workers.common.shared_timeout import Patience


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def test_what_is_answered_in_time_is_returned() -> None:
    waits = future()
    asyncio.get_running_loop().call_soon(waits.set_result, 7)
    assert await Patience(30).bear(waits) == 7


async def test_each_wait_ends_after_its_own_time_and_not_before_the_first_ones() -> None:
    patience, loop = Patience(0.2), asyncio.get_running_loop()

    async def one(later: float) -> float:
        await asyncio.sleep(later)
        began = loop.time()
        with pytest.raises(TimeoutError):
            await patience.bear(future())
        return loop.time() - began

    for took in await asyncio.gather(one(0), one(0.1), one(0.5)):
        assert took >= 0.19


async def test_a_waiter_that_is_cancelled_cancels_what_it_waits_for_and_leaves_the_others() -> None:
    patience, first, second = Patience(0.1), future(), future()
    waiter, other = asyncio.create_task(patience.bear(first)), asyncio.create_task(patience.bear(second))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert first.cancelled()
    with pytest.raises(TimeoutError):
        await other
