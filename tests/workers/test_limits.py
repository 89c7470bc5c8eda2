"""Limits are checked where they are written, and are not promised where they cannot be kept."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_workers import Actor, Concurrency, Cron, Debounce, DeclarationError, DurableOnly, Rate, Unique
from callboard_workers.limits import Limits
from callboard_workers.redis.delivery import message_id
from callboard_workers.testing import Workbench
from tests.workers.limiting import forgetting


@pytest.fixture
def noop() -> Iterator[Callable[..., Actor[Any, Any]]]:
    """Makes the actor `t.noop` with these options; it is forgotten after the test."""
    yield from forgetting()


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Unique(until="never"), "until='never'"),
        (lambda: Unique(conflict="replace"), "only what has not started"),
        (lambda: Unique(key="x"), "key='x' is not a function"),  # type: ignore[arg-type]
        (lambda: Unique(seconds=0), "seconds=0"),
        (lambda: Debounce(wait=-1), "wait=-1"),
        (lambda: Debounce(wait=10, max_wait=5), "less than wait"),
        (lambda: Concurrency(0), "0 is not a whole number from 1"),
        (lambda: Concurrency(True), "True is not"),
        (lambda: Rate("10"), "'10' is no rate"),
        (lambda: Rate("0/s"), "no rate"),
        (lambda: Rate("10/2d"), "at most a day"),
        (lambda: Rate("99999/s"), "at most 10000"),
        (lambda: Rate("10/s\n"), "no rate"),
    ],
)
def test_a_wrong_limit_is_refused(make: Any, fault: str) -> None:
    with pytest.raises(DeclarationError, match=fault):
        make()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"unique": "yes"}, "unique: 'yes' is not a Unique"),
        ({"debounce": 5}, "debounce: 5 is not a Debounce"),
        ({"concurrency": "5"}, "concurrency: '5' is not a Concurrency"),
        ({"rate": 10}, "rate: 10 is not a Rate"),
        ({"concurrency": 1, "rate": Rate("1/s", key=len)}, "same key function"),
        ({"unique": True, "debounce": Debounce(wait=1)}, "leave out `unique`"),
        ({"rate_limit": "10/s"}, 'use `rate="10/s"`'),
        ({"concurency": 1}, "did you mean `concurrency`"),
        ({"cron": Cron("* * * * *"), "debounce": Debounce(wait=1)}, "a tick waits for nobody"),
    ],
)
def test_a_wrong_option_is_refused(noop: Any, options: Any, fault: str) -> None:
    with pytest.raises(DeclarationError, match=fault):
        noop(**options)


def test_rates_are_read() -> None:
    assert [(Rate(text).pace, Rate(text).period) for text in ("10/s", "100/15m", "1000/h", "5/d")] == [
        (10, 1),
        (100, 900),
        (1000, 3600),
        (5, 86_400),
    ]


@given(st.text(max_size=400))
def test_any_value_makes_a_key_that_can_be_stored(text: str) -> None:
    key = Limits(unique=Unique(key=lambda x: x)).key([text], {})
    assert key is not None
    assert 1 <= len(key) <= 200
    assert key.isprintable()
    key.encode()


@pytest.mark.parametrize(
    "options", [{"unique": True}, {"debounce": Debounce(wait=1)}, {"concurrency": 1}, {"rate": "1/s"}]
)
async def test_without_a_row_a_limit_is_not_promised(bench: Workbench, noop: Any, options: Any) -> None:
    limited = noop(**options)
    for send in (limited.send, limited.options(delay=1).send):
        with pytest.raises(DurableOnly, match=next(iter(options))):
            await send()
    with pytest.raises(DurableOnly):
        limited.delay()
    assert bench.broker.published == []
    assert message_id(str(limited.message().id)) is not None
