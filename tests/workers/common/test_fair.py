"""What is scarce goes by priority, then to the tenant served least: counted in positions, never in seconds."""

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_workers.common.fair import FairLimiter, FairQueue, Turn, current_turn
from callboard_workers.common.threads import Threads
from callboard_workers.context import Context, enter, running
from callboard_workers.errors import Overloaded

CRITICAL, HIGH, NORMAL, LOW = 0, 3, 6, 9
TENANTS = {name: f"7f1b5c1e-5d5a-4c0e-9d53-c7d1f3c4a00{n}" for n, name in enumerate("abc")}

turns = st.builds(Turn, priority=st.sampled_from([CRITICAL, HIGH, NORMAL, LOW]), tenant=st.sampled_from("abcd"))
costs = st.floats(0.5, 100)


def drained(queue: FairQueue[Any]) -> list[Any]:
    found = []
    while (item := queue.pop()) is not None:
        found.append(item)
    return found


def flood(queue: FairQueue[Any], turn: Turn, count: int, cost: float = 1.0) -> None:
    for number in range(count):
        queue.push((turn, number), turn, cost)


@given(st.lists(st.tuples(turns, costs, st.booleans()), max_size=80))
def test_everything_that_waits_comes_once_and_each_tenants_own_in_its_order(
    items: list[tuple[Turn, float, bool]],
) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (turn, cost, _) in enumerate(items):
        queue.push(number, turn, cost)
    for number, (_, _, leaves) in enumerate(items):
        if leaves:
            queue.discard(number)
            queue.discard(number)
    stay = [number for number, (_, _, leaves) in enumerate(items) if not leaves]
    assert len(queue) == len(stay)
    served = drained(queue)
    assert sorted(served) == stay
    for turn in {items[number][0] for number in stay}:
        own = [number for number in served if items[number][0] == turn]
        assert own == sorted(own)
    assert [*queue._items, *queue._tenants, *queue._places] == []


@given(st.integers(2, 6), st.lists(costs, min_size=2, max_size=40))
def test_tenants_that_wait_all_the_time_are_served_alike(tenants: int, sizes: list[float]) -> None:
    queue: FairQueue[Any] = FairQueue()
    for tenant in range(tenants):
        for number in range(200):
            queue.push((tenant, number), Turn(NORMAL, tenant), sizes[(tenant + number) % len(sizes)])
    got: Counter[Hashable] = Counter()
    for _ in range(tenants * 20):
        tenant, number = queue.pop() or ("", 0)
        got[tenant] += sizes[(tenant + number) % len(sizes)]  # type: ignore[operator]
        assert max(got.values()) - min(got[each] for each in range(tenants)) <= 2 * max(sizes)


@given(st.integers(0, 300), st.lists(st.tuples(turns, costs), max_size=60))
def test_critical_work_that_arrives_is_next_whatever_waits(served: int, waiting: list[tuple[Turn, float]]) -> None:
    queue: FairQueue[Any] = FairQueue()
    for turn in (Turn(LOW, "a"), Turn(NORMAL, "b"), Turn(HIGH, "b")):
        flood(queue, turn, 200)
    for _ in range(served):
        queue.pop()
    for number, (turn, cost) in enumerate(waiting):
        if turn.priority != CRITICAL:
            queue.push(number, turn, cost)
    queue.push("now", Turn(CRITICAL, "c"))
    assert queue.pop() == "now"


@given(st.integers(0, 500), st.integers(1, 5))
def test_a_tenant_that_arrives_in_a_flood_comes_after_one_of_each_other(served: int, others: int) -> None:
    queue: FairQueue[Any] = FairQueue()
    for tenant in range(others):
        flood(queue, Turn(NORMAL, tenant), 600)
    for _ in range(served):
        queue.pop()
    queue.push("mine", Turn(NORMAL, "new"))
    assert "mine" in [queue.pop() for _ in range(others + 1)]


def test_a_flood_of_critical_work_starves_nobody() -> None:
    queue: FairQueue[Any] = FairQueue()
    for priority in (CRITICAL, HIGH, NORMAL, LOW):
        flood(queue, Turn(priority, "a"), 5_000)
    shares = Counter(item[0].priority for item in (queue.pop() for _ in range(2 * 585)))
    assert shares == {CRITICAL: 2 * 512, HIGH: 2 * 64, NORMAL: 2 * 8, LOW: 2}


def test_leaving_and_coming_again_gains_nothing() -> None:
    queue: FairQueue[Any] = FairQueue()
    flood(queue, Turn(NORMAL, "a"), 100)
    flood(queue, Turn(NORMAL, "b"), 100)
    mine = 0
    for number in range(90):
        queue.push(f"sly {number}", Turn(NORMAL, "sly"))
        queue.discard(f"sly {number}")
        queue.push(f"sly {number} again", Turn(NORMAL, "sly"))
        mine += str(queue.pop()).startswith("sly")
    assert mine <= 31


def test_what_was_served_and_left_is_forgotten() -> None:
    queue: FairQueue[Any] = FairQueue()
    flood(queue, Turn(NORMAL, "a"), 5_000)
    for number in range(5_000):
        queue.push(number, Turn(NORMAL, number))
        queue.push(-number - 1, Turn(NORMAL, number))
        queue.discard(-number - 1)
        queue.pop()
    drained(queue)
    for number in range(1_000):
        queue.push(number, Turn(NORMAL, "b"))
        queue.discard(number)
    assert [*queue._items, *queue._tenants, *queue._places, *queue._classes._heap] == []


def test_the_turn_is_that_of_the_running_attempt() -> None:
    assert current_turn() == Turn()
    id: Any = "an id"
    tenant = "7f1b5c1e-5d5a-4c0e-9d53-c7d1f3c4a001"
    entered = enter(Context(id=id, actor=None, queue="email", priority=CRITICAL, headers={"tenant_id": tenant}))
    try:
        assert (current_turn().priority, str(current_turn().tenant)) == (CRITICAL, tenant)
    finally:
        running.reset(entered)
    assert current_turn() == Turn()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_limiter_hands_out_what_there_is_and_more_than_that_goes_alone() -> None:
    limiter = FairLimiter(10)
    order: list[str] = []

    async def take(name: str, amount: int) -> None:
        async with limiter.hold(amount):
            order.append(name)
            await asyncio.sleep(0.01)
            assert limiter.free >= 0

    await asyncio.gather(take("four", 4), take("six", 6), take("fifty", 50), take("one", 1))
    assert order == ["four", "six", "fifty", "one"]
    assert (limiter.free, limiter.waiting) == (10, 0)


async def test_a_tenant_leaves_the_others_their_share_however_long_it_keeps_its_own() -> None:
    limiter = FairLimiter(10, share=0.5)
    greedy, other = Turn(NORMAL, "a"), Turn(NORMAL, "b")
    await limiter.acquire(5, turn=greedy)
    more = [asyncio.ensure_future(limiter.acquire(3, turn=greedy)) for _ in range(3)]
    await settle()
    assert limiter.free == 5
    await asyncio.wait_for(limiter.acquire(4, turn=other), 5)
    assert not limiter.try_acquire(4, turn=other)
    limiter.release(5, turn=greedy)
    await settle()
    assert [each.done() for each in more] == [True, False, False]
    huge = asyncio.ensure_future(limiter.acquire(100, turn=Turn(CRITICAL, "c")))
    limiter.release(4, turn=other)
    await settle()
    assert not huge.done()
    limiter.release(3, turn=greedy)
    await asyncio.wait_for(huge, 5)
    limiter.release(100, turn=Turn(CRITICAL, "c"))
    await settle()
    limiter.release(3, turn=greedy)
    await asyncio.wait_for(asyncio.gather(*more), 5)


async def test_threads_go_by_priority_and_then_to_the_tenant_served_least() -> None:
    threads, order = Threads(1, "t"), list[str]()

    async def work(name: str, priority: int) -> None:
        id: Any = name
        context = Context(id=id, actor=None, queue="q", priority=priority, headers={"tenant_id": TENANTS[name[0]]})
        enter(context)
        async with threads.reserved(context) as thread:
            await thread.start(lambda: order.append(name))

    tasks = [asyncio.create_task(work(f"a{n}", NORMAL)) for n in range(6)]
    tasks += [asyncio.create_task(work("b", NORMAL)), asyncio.create_task(work("c", CRITICAL))]
    await settle()
    assert threads.full
    await asyncio.gather(*tasks)
    assert order[:4] in (["a0", "c", "a1", "b"], ["a0", "c", "b", "a1"])
    assert not threads.full
    threads.close()


async def test_too_many_that_wait_are_refused() -> None:
    limiter = FairLimiter(1, waiting=1)
    await limiter.acquire()
    waits = asyncio.ensure_future(limiter.acquire())
    await settle()
    with pytest.raises(Overloaded):
        await limiter.acquire()
    waits.cancel()
    await settle()
    assert limiter.waiting == 0


@given(
    st.integers(1, 8),
    st.sampled_from([0.5, 1.0]),
    st.lists(st.tuples(turns, st.integers(1, 12), st.integers(0, 3), st.booleans()), max_size=40),
)
def test_a_limiter_never_gives_more_than_it_has_and_ends_with_all_of_it(
    capacity: int, share: float, callers: list[tuple[Turn, int, int, bool]]
) -> None:
    async def whole() -> None:
        limiter = FairLimiter(capacity, share=share)
        held: Counter[Hashable] = Counter()
        holders: Counter[Hashable] = Counter()

        async def call(turn: Turn, amount: int, steps: int) -> None:
            async with limiter.hold(amount, turn=turn):
                amount = min(amount, capacity)
                held[turn.tenant] += amount
                holders[turn.tenant] += 1
                assert sum(held.values()) <= capacity
                assert held[turn.tenant] <= share * capacity or holders[turn.tenant] == 1
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    held[turn.tenant] -= amount
                    holders[turn.tenant] -= 1

        tasks = []
        for turn, amount, steps, cancelled in callers:
            tasks.append(asyncio.ensure_future(call(turn, amount, steps)))
            if cancelled:
                await asyncio.sleep(0)
                tasks[len(tasks) // 2].cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert [each for each in results if each is not None and not isinstance(each, asyncio.CancelledError)] == []
        assert (limiter.free, limiter.waiting, limiter._asked, limiter._held) == (capacity, 0, {}, {})

    asyncio.run(whole())
