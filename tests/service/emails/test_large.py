"""Large emails: no connection waits for memory, what fails gives both back, and one that is too large goes alone."""

import asyncio
from base64 import b64encode
from typing import Any
from uuid import UUID

import msgspec
import pytest

from callboard_workers.common.fair import Turn
from callboard_workers.policy import DeadLetter, Done
from service.emails.resources import Office
from service.emails.schemas import EmailRequest
from tests.faults.sink import Sink
from tests.service.emails.postman import HELLO, MakePost, Post

MEMORY = 1024 * 1024
FORGET = """UPDATE emails SET attachments = jsonb_set(attachments, '{0,digest}', '"00"') WHERE id = :id"""
OTHER = Turn(tenant="another")


def request(kilobytes: int, **fields: Any) -> EmailRequest:
    content = b64encode(bytes(kilobytes << 10)).decode()
    file = {"filename": "a.pdf", "content_type": "application/pdf", "content": content}
    return msgspec.convert({**HELLO, "attachments": [file], **fields}, EmailRequest)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the other side is a server
            await asyncio.sleep(0.01)


def office_of(post: Post) -> Office:
    return Office.of(post.bench.runtime)


@pytest.fixture
def sizes() -> dict[str, str]:
    return {"EMAIL_MEMORY": str(MEMORY), "SMTP_POOL_SIZE": "2"}


async def test_large_emails_share_the_memory_and_one_that_needs_more_goes_alone(
    post_to: MakePost, sizes: dict[str, str]
) -> None:
    async with Sink() as sink, post_to(sink, **sizes) as post:
        ids = [await post.enqueue(request(size)) for size in (150, 2_000, 200, 600, 130)]
        outcomes = await asyncio.gather(*(post.work(id) for id in ids))
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        assert sorted(len(mail.data) // 100_000 for mail in sink.mails) == [1, 2, 2, 8, 28]
        assert office_of(post).memory.free == MEMORY


async def test_an_email_that_waits_for_memory_holds_no_connection(post_to: MakePost, sizes: dict[str, str]) -> None:
    async with Sink() as sink, post_to(sink, **sizes) as post:
        office = office_of(post)
        await office.memory.acquire(MEMORY, turn=OTHER)
        large = [asyncio.create_task(post.work(await post.enqueue(request(200)))) for _ in range(3)]
        await until(lambda: office.memory.waiting == 3)
        load = office.mailer.transport.load
        assert load.open == load.idle
        for _ in range(3):
            assert isinstance(await post.work(await post.enqueue()), Done)
        assert (len(sink.mails), office.memory.waiting) == (3, 3)
        large[2].cancel()
        await asyncio.wait({large[2]})
        office.memory.release(MEMORY, turn=OTHER)
        assert all(isinstance(each, Done) for each in await asyncio.gather(*large[:2]))
        assert (len(sink.mails), office.memory.free, office.memory.waiting) == (5, MEMORY, 0)


async def test_one_that_cannot_be_loaded_gives_back_memory_and_connection(
    post_to: MakePost, sizes: dict[str, str]
) -> None:
    async with Sink() as sink, post_to(sink, **sizes) as post:
        gone, fine = [await post.enqueue(request(200, subject=subject)) for subject in ("gone", "fine")]
        await post.sql(FORGET, id=gone)
        outcome = await post.work(gone)
        assert isinstance(outcome, DeadLetter)
        assert (outcome.detail or {})["reason"] == "content_refused"
        assert isinstance(await post.work(fine), Done)
        office = office_of(post)
        load = office.mailer.transport.load
        assert (len(sink.mails), office.memory.free) == (1, MEMORY)
        assert load.open == load.idle == 1


async def test_bodies_count_as_well_and_are_sent_as_they_are(post_to: MakePost, sizes: dict[str, str]) -> None:
    html = "<p>" + "a long story. " * 20_000 + "</p>"
    async with Sink() as sink, post_to(sink, **sizes) as post:
        id: UUID = await post.enqueue(html=html, text=None)
        loaded = await office_of(post).loader.load(id)
        assert loaded is not None
        assert (loaded.html, loaded.size) == (None, len(html))
        assert isinstance(await post.work(id), Done)
        leaves = [part for part in post.mails[0].walk() if not part.is_multipart()]
        parts = {part.get_content_type(): part.get_content() for part in leaves}
        assert parts["text/html"].strip() == html
        assert parts["text/plain"].startswith("a long story. a long")
        assert len(sink.mails) == 1
