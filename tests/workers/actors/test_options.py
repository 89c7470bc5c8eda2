"""Each row of the options in docs/actors.md: its name and its default, and what it does to a message, row or not."""

import asyncio
import inspect
import re
import sys
import threading
from typing import Annotated, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import (
    Actor,
    Backoff,
    BadArguments,
    Canceling,
    DeadLetter,
    Debounce,
    DeclarationError,
    Depends,
    Done,
    DurableOnly,
    Ignored,
    LeaseLost,
    Message,
    Policy,
    RetryAt,
    State,
    actor,
    current,
    injected,
)
from callboard_workers.message import Delivery
from callboard_workers.redis.delivery import following
from callboard_workers.testing import Workbench
from tests.layout.repository import ROOT
from tests.workers.ledger.rows import look, make

pytestmark = pytest.mark.usefixtures("declared")


def table() -> dict[str, str]:
    """The options of the document, each with its default as it is written there."""
    page = (ROOT / "docs/actors.md").read_text("utf-8")
    rows = re.search(r"\| option \| default \| meaning \|\n\|[-|]+\|\n((?:\|.*\n)+)", page)
    assert rows is not None
    found: dict[str, str] = {}
    for row in rows[1].splitlines():
        names, default = (cell.strip() for cell in row.split("|")[1:3])
        options = re.findall(r"`(\w+)`", names)
        defaults = [each.strip(" `") for each in default.split(",")] if len(options) > 1 else [default.strip("` ")]
        found |= dict(zip(options, defaults if len(defaults) == len(options) else defaults * len(options), strict=True))
    return found


def test_the_document_names_every_option_and_no_other() -> None:
    own = {"name", "queue", "priority", "aliases", "cron", "unique", "debounce", "concurrency", "rate"}
    assert set(table()) == {*own, "on_success", "on_dead", *Policy.__struct_fields__}


def test_the_document_gives_each_default() -> None:
    written, real = table(), Policy()
    for option in ("max_retries", "max_crashes", "max_snoozes", "time_limit", "grace"):
        assert float(written[option]) == getattr(real, option), option
    for option in ("expires", "result", "retry_when"):
        assert getattr(real, option) is None
        assert written[option] == "none", option
    assert written["uncertain"] == real.uncertain
    assert (real.backoff.min, real.backoff.max) == (1, 3600)
    assert written["backoff"] == "full jitter 1 s to 1 h"


async def enqueue(bench: Workbench, sender: Any, *args: Any) -> Message:
    async with AsyncSession(bench.runtime.engine) as session:
        message: Message = await sender.enqueue(session, *args)
        await session.commit()
    return message


async def test_an_alias_runs_what_was_sent_under_the_old_name(bench: Workbench, engine: AsyncEngine) -> None:
    @actor(name="o.new", aliases=("o.old",))
    async def renamed() -> str:
        return current().actor.name  # type: ignore[no-any-return]

    id = await make(engine, actor="o.old")
    await bench.finish()
    assert await bench.state(id) is State.DONE
    await bench.broker.publish([Message(actor="o.old")])
    assert [outcome for _, outcome in await bench.drain()] == [Done(result="o.new")]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_plain_function_passes_its_fence_and_tells_its_progress(bench: Workbench, durable: bool) -> None:
    seen: list[Any] = []

    @actor(name="o.plain")
    def plain() -> None:
        assert threading.current_thread() is not threading.main_thread()
        current().progress(1, 3, "reading")
        current().progress(2, 3)
        seen.append(current().fenced)
        current().fence()
        seen.append(current().fenced)

    if durable:
        message = await enqueue(bench, plain)
        assert [type(outcome) for _, outcome in await bench.drain()] == [Done]
        row = await look(bench.runtime.engine, message.id)  # type: ignore[arg-type]
        assert (row.intent, row.progress) == (True, {"done": 2, "total": 3})
    else:
        await plain.send()
        assert [type(outcome) for _, outcome in await bench.drain()] == [Done]
    assert seen == [False, True]


async def test_a_plain_function_is_stopped_at_a_fence_that_is_no_longer_its_own(
    bench: Workbench, engine: AsyncEngine
) -> None:
    claimed, go = threading.Event(), threading.Event()

    @actor(name="o.plain")
    def plain() -> None:
        claimed.set()
        assert go.wait(30)
        with pytest.raises(LeaseLost):
            current().fence()
        current().fence()

    message = await enqueue(bench, plain)
    running = asyncio.ensure_future(bench.drain())
    await asyncio.to_thread(claimed.wait, 30)
    assert await bench.runtime.ledger.cancel(message.id) is Canceling.REQUESTED
    go.set()
    [(_, outcome)] = await running
    assert not isinstance(outcome, Done | RetryAt | DeadLetter)
    assert (await look(engine, message.id)).intent is False


async def test_a_loop_in_the_thread_of_a_plain_function_may_await_it(bench: Workbench) -> None:
    @actor(name="o.nested")
    def nested() -> None:
        async def inside() -> None:
            await current().progress(1)
            await current().fence()

        asyncio.run(inside())

    await enqueue(bench, nested)
    assert [type(outcome) for _, outcome in await bench.drain()] == [Done]


async def test_what_a_plain_function_tells_is_awaitable_as_well(bench: Workbench) -> None:
    @actor(name="o.both")
    async def both() -> None:
        await current().progress(1)
        await current().fence()

    await enqueue(bench, both)
    assert [type(outcome) for _, outcome in await bench.drain()] == [Done]


async def test_two_words_of_progress_in_a_row_are_both_heard(bench: Workbench, engine: AsyncEngine) -> None:
    @actor(name="o.counting", time_limit=30)
    async def counting() -> None:
        for number in range(5):
            await current().progress(number, 5)

    message = await enqueue(bench, counting)
    await bench.drain()
    assert (await look(engine, message.id)).progress == {"done": 4, "total": 5}


async def test_a_key_without_a_row_is_refused(bench: Workbench) -> None:
    @actor(name="o.keyed")
    async def keyed() -> None: ...

    with pytest.raises(DurableOnly, match=r"enqueue\(session"):
        await keyed.options(key="once").send()
    bench.assert_not_sent(keyed)


@pytest.mark.parametrize("name", ["delay", "expires"])
async def test_more_than_ten_years_are_for_a_row(bench: Workbench, name: str) -> None:
    @actor(name="o.late")
    async def late() -> None: ...

    years = 365 * 86_400.0
    with pytest.raises(DurableOnly, match="ten years"):
        await late.options(**{name: 10 * years + 60}).send()
    bench.assert_not_sent(late)
    await late.options(**{name: 10 * years - 60}).send()
    bench.assert_sent(late)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"expires": 0}, "not a positive number of seconds"),
        ({"expires": 401 * 86_400}, "more than 400 days"),
        ({"result": 401 * 86_400}, "more than 400 days"),
        ({"expires": 5, "debounce": Debounce(wait=5)}, "over before the debounce's wait is"),
    ],
)
def test_an_expiry_that_makes_no_sense_fails_where_it_is_declared(options: Any, fault: str) -> None:
    with pytest.raises(DeclarationError, match=fault):

        @actor(name="o.wrong", **options)
        async def wrong() -> None: ...


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"expires": 1e18}, "not a positive number of seconds up to"),
        ({"delay": 60}, "it would never run"),
        ({"delay": 60, "expires": 50}, "it would never run"),
    ],
)
def test_a_message_that_would_never_run_is_refused(options: Any, fault: str) -> None:
    @actor(name="o.short", expires=60)
    async def short() -> None: ...

    assert short.options(delay=60, expires=70).message().expires == 70
    with pytest.raises(ValueError, match=fault):
        short.options(**options)


async def test_a_moment_past_the_expiry_is_refused(bench: Workbench) -> None:
    @actor(name="o.short", expires=60)
    async def short() -> None: ...

    with pytest.raises(ValueError, match="it would never run"):
        short.options(at=bench.clock.now().replace(year=bench.clock.now().year + 1))


def test_a_retry_without_a_row_carries_its_expiry(bench: Workbench) -> None:
    moment = bench.clock.now()
    again = RetryAt(delay=5)
    late = following(Delivery(id=Message(actor="a").id, actor="a", expires_at=moment), again, 6)
    assert late.expires is not None
    assert 0 < late.expires <= 0.001
    assert following(Delivery(id=late.id, actor="a"), again, 6).expires is None


@pytest.mark.parametrize("durable", [True, False])
async def test_dependencies_are_opened_anew_for_each_attempt(bench: Workbench, durable: bool) -> None:
    opened: list[str] = []

    async def resource() -> Any:
        opened.append("open")
        yield len(opened)
        opened.append("closed")

    @actor(name="o.needy", backoff=Backoff(min=0, max=0))
    async def needy(x: int, *, it: Annotated[int, Depends(resource)] = injected) -> int:
        if current().attempt == 1:
            raise OSError
        return it

    await (enqueue(bench, needy, 1) if durable else needy.send(1))
    await bench.finish()
    assert isinstance(bench.outcomes[-1][1], Done)
    assert opened.count("open") == 2
    assert opened[-1] == "closed"


async def test_arguments_a_newer_version_sent_are_a_dead_letter_that_says_so(bench: Workbench) -> None:
    @actor(name="o.grown")
    async def grown(x: int) -> None: ...

    await bench.broker.publish([Message(actor="o.grown", args=(1, 2))])
    [(_, outcome)] = await bench.drain()
    assert isinstance(outcome, DeadLetter)
    assert outcome.error is not None
    assert outcome.error["type"] == BadArguments.__name__


async def test_a_doorbell_after_everything_is_ignored(bench: Workbench, engine: AsyncEngine) -> None:
    @actor(name="o.once")
    async def once() -> None: ...

    message = await enqueue(bench, once)
    await bench.drain()
    bench.broker.ring([message])
    assert [type(outcome) for _, outcome in await bench.drain()] == [Ignored]


async def test_what_a_policy_says_of_crashes_is_kept_in_the_row(bench: Workbench, engine: AsyncEngine) -> None:
    @actor(name="o.fragile", max_crashes=1, uncertain="resend")
    async def fragile() -> None: ...

    message = await enqueue(bench, fragile)
    row = await look(engine, message.id)
    assert (row.max_crashes, row.uncertain_policy) == (1, "resend")


def test_the_signature_of_actor_names_what_it_takes() -> None:
    """`actor(...)`'s overload, for editors and type checkers, has every option with its type."""
    source = inspect.getsource(sys.modules[Actor.__module__])
    declared = re.search(r"@overload\ndef actor\(\n    \*,\n(.*?)\*\*options", source, re.DOTALL)
    assert declared is not None
    assert set(re.findall(r"^    (\w+):", declared[1], re.MULTILINE)) == set(table())
