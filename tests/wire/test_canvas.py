"""A canvas survives that one of its actors is retried or snoozes: what was to follow it still does, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, chord, group

from service.dev.stack import Stack
from tests.wire.process import Worker, client


@pytest.fixture(scope="module")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    results = stack.redis_url.replace("/0", "/2")
    with Worker(stack.redis_url, tmp_path_factory.mktemp("canvas"), "-Q", "default", RESULTS=results) as running:
        yield running


@pytest.fixture(scope="module")
def stock(stack: Stack) -> Celery:
    return client(stack.redis_url, backend=stack.redis_url.replace("/0", "/2"))


@pytest.fixture
def tag() -> str:
    return uuid4().hex[:8]


def step(stock: Celery, name: str, *args: Any, **more: Any) -> Any:
    return stock.signature(name, args=args, immutable=True, queue="default", **more)


@pytest.mark.parametrize(("name", "more"), [("demo.flaky", [3]), ("demo.sleepy", [])])
def test_a_chain_goes_on_after_a_retry_and_after_a_snooze(
    worker: Worker, stock: Celery, tag: str, name: str, more: list[int]
) -> None:
    chain(step(stock, name, tag, *more), step(stock, "demo.work", f"{tag}z")).apply_async()
    worker.wait_for(f"end {tag}z")
    assert worker.notes()[f"end {tag}z"] == 1


def test_links_follow_after_a_retry_and_error_links_after_the_last(worker: Worker, stock: Celery, tag: str) -> None:
    step(stock, "demo.flaky", tag, 2).apply_async(link=step(stock, "demo.work", f"{tag}l"))
    step(stock, "demo.again", f"{tag}a").apply_async(link_error=step(stock, "demo.work", f"{tag}e"))
    worker.wait_for(f"end {tag}l", f"end {tag}e")
    assert worker.notes()[f"attempt2 {tag}a"] == 1


def test_a_chord_waits_for_the_member_that_is_retried(worker: Worker, stock: Celery, tag: str) -> None:
    slow = chain(
        step(stock, "demo.flaky", tag, 2), stock.signature("demo.add", (2, 3), queue="default", immutable=True)
    )
    quick = step(stock, "demo.add", 1, 1)
    assert chord(group(slow, quick), stock.signature("demo.total", queue="default")).apply_async().get(timeout=60) == 7
