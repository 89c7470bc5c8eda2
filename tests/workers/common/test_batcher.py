"""What is concurrent goes together; one bad item harms no other; nobody waits for ever."""

import asyncio
import itertools
from collections.abc import Sequence

import asyncpg
import pytest

from callboard_workers.common.batcher import Batcher
from callboard_workers.errors import Overloaded


class Flushes:
    """Doubles numbers, one batch after the other when `gate` lets it; refuses batches with a number in `poison`."""

    def __init__(self, *poison: int, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.poison = set(poison)
        self.error = error or asyncpg.exceptions.CheckViolationError("bad")
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0

    async def __call__(self, items: list[int]) -> Sequence[int | Exception]:
        self.batches.append(items)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.poison & set(items):
                raise self.error
            return [item * 2 for item in items]
        finally:
            self.at_once -= 1


async def test_a_lone_item_goes_at_once() -> None:
    flush = Flushes()
    assert await Batcher(flush).submit(21) == 42
    assert flush.batches == [[21]]


@pytest.mark.parametrize("in_flight", [1, 2, 3])
async def test_whoever_was_answered_may_ask_again_at_once(in_flight: int) -> None:
    """An answer wakes its waiter before the flush's task has told anybody that it is done."""
    flush = Flushes()
    batcher = Batcher(flush, max_batch=1, in_flight=in_flight)

    async def ask_on(first: int) -> list[int]:
        return [await batcher.submit(number) for number in range(first, first + 20)]

    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(ask_on(100 * n) for n in range(in_flight)))
    assert answers == [[2 * number for number in range(100 * n, 100 * n + 20)] for n in range(in_flight)]
    assert flush.most_at_once == in_flight


async def test_what_comes_while_batches_are_away_goes_together_in_order() -> None:
    flush = Flushes()
    flush.gate.clear()
    batcher = Batcher(flush, max_batch=10, in_flight=2)
    waiters = [asyncio.create_task(batcher.submit(n)) for n in range(30)]
    await asyncio.sleep(0.01)
    flush.gate.set()
    assert await asyncio.gather(*waiters) == [n * 2 for n in range(30)]
    assert flush.most_at_once <= 2
    assert max(map(len, flush.batches)) <= 10
    assert list(itertools.chain(*flush.batches)) == list(range(30))
    assert len(flush.batches) <= 4


async def test_with_a_head_start_a_second_batch_leaves_only_when_it_is_full() -> None:
    flush = Flushes()
    flush.gate.clear()
    batcher = Batcher(flush, max_batch=3, in_flight=2, head_start=600)
    waiters = [asyncio.create_task(batcher.submit(0))]
    await asyncio.sleep(0.01)
    waiters += [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
    await asyncio.sleep(0.01)
    assert flush.batches == [[0]]
    waiters += [asyncio.create_task(batcher.submit(n)) for n in (3, 4)]
    await asyncio.sleep(0.01)
    assert flush.batches == [[0], [1, 2, 3]]
    flush.gate.set()
    assert await asyncio.gather(*waiters) == [0, 2, 4, 6, 8]
    assert flush.batches == [[0], [1, 2, 3], [4]]


async def test_a_batch_that_hangs_holds_up_no_other_for_longer_than_its_head_start() -> None:
    stuck = asyncio.Event()

    async def flush(items: list[int]) -> Sequence[int]:
        if 0 in items:
            await stuck.wait()
        return items

    batcher = Batcher(flush, in_flight=2, head_start=0.05)
    async with asyncio.timeout(30):
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0)
        assert await asyncio.gather(*(batcher.submit(n) for n in (1, 2))) == [1, 2]
        assert [await batcher.submit(n) for n in (3, 4)] == [3, 4]
        stuck.set()
        assert await first == 0
        await batcher.close()


@pytest.mark.parametrize("head_start", [1e-9, 0.001, 600])
async def test_with_a_head_start_everybody_is_answered(head_start: float) -> None:
    flush = Flushes()
    batcher = Batcher(flush, max_batch=5, in_flight=2, head_start=head_start)

    async def ask_on(first: int) -> list[int]:
        return [await batcher.submit(number) for number in range(first, first + 50)]

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(ask_on(100 * n) for n in range(12)))
    assert answers == [[2 * number for number in range(100 * n, 100 * n + 50)] for n in range(12)]
    assert sorted(itertools.chain(*flush.batches)) == sorted(100 * n + m for n in range(12) for m in range(50))


async def test_a_batch_ends_at_its_weight_and_what_is_heavier_goes_alone() -> None:
    flush = Flushes()
    flush.gate.clear()
    batcher = Batcher(flush, in_flight=1, weigh=lambda number: number, max_weight=10)
    waiters = [asyncio.create_task(batcher.submit(n)) for n in (1, 4, 6, 5, 50, 3, 7, 1)]
    await asyncio.sleep(0)
    waiters[3].cancel()
    await asyncio.sleep(0)
    flush.gate.set()
    answers = await asyncio.gather(*waiters, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [2, 8, 12, 100, 6, 14, 2]
    assert flush.batches == [[1, 4], [6], [50], [3, 7], [1]]


async def test_a_poisoned_item_is_found_and_the_others_are_flushed_once() -> None:
    flush = Flushes(7, 20)
    batcher = Batcher(flush, in_flight=1)
    answers = await asyncio.gather(*(batcher.submit(n) for n in range(32)), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, Exception)] == [7, 20]
    assert all(answer == n * 2 for n, answer in enumerate(answers) if n not in {7, 20})
    succeeded = [n for batch in flush.batches if not {7, 20} & set(batch) for n in batch]
    assert sorted(succeeded) == sorted(set(succeeded))


async def test_a_lost_connection_is_not_mistaken_for_a_poisoned_item() -> None:
    flush = Flushes(3, error=ConnectionResetError("gone"))
    batcher = Batcher(flush, in_flight=1)
    answers = await asyncio.gather(*(batcher.submit(n) for n in range(8)), return_exceptions=True)
    assert len(flush.batches) == 1
    assert all(isinstance(answer, ConnectionResetError) for answer in answers)


async def test_each_item_may_have_an_error_of_its_own() -> None:
    async def flush(items: list[int]) -> Sequence[int | Exception]:
        return [KeyError(item) if item % 2 else item for item in items]

    batcher: Batcher[int, int] = Batcher(flush)
    assert await batcher.submit(2) == 2
    with pytest.raises(KeyError):
        await batcher.submit(3)


async def test_an_item_whose_waiter_was_cancelled_in_time_is_never_flushed() -> None:
    flush = Flushes()
    flush.gate.clear()
    batcher = Batcher(flush, in_flight=1)
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0)
    second, third = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.wait({second})
    flush.gate.set()
    assert (await first, await third) == (2, 6)
    assert [2] not in flush.batches
    assert 2 not in list(itertools.chain(*flush.batches))


async def test_a_result_nobody_waits_for_any_more_is_handed_to_whoever_cleans_up() -> None:
    flush, orphans = Flushes(), []
    flush.gate.clear()
    batcher = Batcher(flush, orphaned=orphans.append)
    waiter = asyncio.create_task(batcher.submit(4))
    await asyncio.sleep(0.01)
    waiter.cancel()
    await asyncio.wait({waiter})
    flush.gate.set()
    await batcher.close()
    assert orphans == [8]


async def test_closing_answers_everybody_and_takes_nothing_more() -> None:
    flush = Flushes()
    flush.gate.clear()
    batcher = Batcher(flush, max_batch=2, in_flight=1)
    waiters = [asyncio.create_task(batcher.submit(n)) for n in range(7)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batcher.submit(9)
    flush.gate.set()
    await closing
    assert all(waiter.done() for waiter in waiters)
    assert await asyncio.gather(*waiters) == [n * 2 for n in range(7)]


async def test_more_than_may_wait_is_refused_and_the_rest_is_served() -> None:
    flush = Flushes()
    flush.gate.clear()
    batcher = Batcher(flush, max_batch=5, in_flight=1, limit=10)
    waiters = [asyncio.create_task(batcher.submit(n)) for n in range(40)]
    await asyncio.sleep(0.01)
    flush.gate.set()
    answers = await asyncio.gather(*waiters, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert 0 < len(refused) == 40 - len([answer for answer in answers if isinstance(answer, int)])


async def test_a_flush_that_forgets_an_item_fails_them_all() -> None:
    async def flush(items: list[int]) -> Sequence[int | Exception]:
        return items[:-1]

    batcher: Batcher[int, int] = Batcher(flush)
    with pytest.raises(RuntimeError, match="answered 0 of 1"):
        await batcher.submit(1)
