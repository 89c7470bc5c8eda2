"""Whatever the mail server does, at any phase: a mail is in doubt only when the answer to its dot was lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.testing import workbench
from service.emails.delivery import Mailer
from service.emails.resources import Office
from service.settings import Settings
from service.smtp import Timeouts, Transport
from tests.faults.proxy import Proxy
from tests.faults.sink import Rule, Sink
from tests.service.emails.postman import Post

PHASES = ("banner", "ehlo", "mail", "rcpt", "data", "dot")
SHORT = 0.5  # seconds of the phase that fails; all others have the time that the RFC gives them


@asynccontextmanager
async def post_to(engine: AsyncEngine, sink: Sink, short: str = "", port: int = 0) -> AsyncIterator[Post]:
    """A worker in the hand, impatient at one phase."""
    where = {"SMTP_HOST": sink.host, "SMTP_PORT": str(port or sink.port), "MAIL_FROM": "mail@callboard.example"}
    settings = Settings.from_env(where)
    async with workbench(engine) as bench:
        bench.runtime.state["settings"] = settings
        timeouts = Timeouts(**{short: SHORT}) if short else None
        Office.of(bench.runtime).mailer = Mailer(settings, engine, Transport.of(settings, timeouts=timeouts))
        yield Post(engine, bench, sink)


async def state_after(post: Post) -> str:
    """One attempt at one mail; the state of its message."""
    id = await post.enqueue()
    await post.work(id)
    [found] = await post.sql("SELECT state FROM messages WHERE id = :id", id=id)
    return found["state"]


@pytest.mark.parametrize(
    ("phase", "reply", "state"),
    [
        ("banner", "421 4.7.0 too many connections", "queued"),
        ("ehlo", "421 4.3.2 closing", "queued"),
        ("mail", "451 4.3.0 later", "queued"),
        ("mail", "552 5.3.4 too large", "dead"),
        ("rcpt", "450 4.2.1 greylisted", "queued"),
        ("rcpt", "452 4.5.3 too many recipients", "queued"),
        ("rcpt", "550 5.1.1 no such user", "dead"),
        ("data", "451 4.3.2 not now", "queued"),
        ("dot", "451 4.3.0 later", "queued"),
        ("dot", "452 4.3.1 disk full", "queued"),
        ("dot", "554 5.7.1 refused", "dead"),
    ],
)
async def test_a_definite_answer_at_any_phase_leaves_no_doubt(
    engine: AsyncEngine, phase: str, reply: str, state: str
) -> None:
    async with Sink({phase: [Rule(reply)]}) as sink, post_to(engine, sink) as post:
        assert await state_after(post) == state
        assert sink.mails == []


@pytest.mark.parametrize("phase", PHASES)
async def test_silence_is_in_doubt_after_the_dot_only(engine: AsyncEngine, phase: str) -> None:
    async with Sink({phase: [Rule(then="hang")]}) as sink, post_to(engine, sink, phase) as post:
        assert await state_after(post) == ("uncertain" if phase == "dot" else "queued")
        assert sink.mails == []


@pytest.mark.parametrize("phase", [*PHASES, "body"])
async def test_hanging_up_is_in_doubt_after_the_dot_only(engine: AsyncEngine, phase: str) -> None:
    async with Sink({phase: [Rule(then="close")]}) as sink, post_to(engine, sink) as post:
        assert await state_after(post) == ("uncertain" if phase == "dot" else "queued")
        assert sink.mails == []


@pytest.mark.parametrize("then", ["close", "hang"])
async def test_taken_without_a_word_it_is_in_doubt_and_is_never_sent_again_by_itself(
    engine: AsyncEngine, then: str
) -> None:
    async with Sink({"dot": [Rule(then=then, accept=True)]}) as sink, post_to(engine, sink, "dot") as post:
        id = await post.enqueue()
        for _ in range(3):
            await post.work(id)
        assert (await post.look(id)).status == "uncertain"
        assert len(sink.mails) == 1


async def test_a_line_that_is_cut_at_the_dot_is_in_doubt_and_one_that_is_cut_before_it_is_not(
    engine: AsyncEngine,
) -> None:
    async with Sink() as sink, Proxy(sink.host, sink.port) as proxy, post_to(engine, sink, port=proxy.port) as post:
        proxy.cut_at(b"DATA")
        assert await state_after(post) == "queued"
        proxy.cut_at(b"\r\n.\r\n", passing=True)
        assert await state_after(post) == "uncertain"
        assert len(sink.mails) == 1


async def test_a_line_that_passes_nothing_any_more_is_in_doubt_after_the_dot_only(engine: AsyncEngine) -> None:
    async with Sink() as sink, Proxy(sink.host, sink.port) as proxy, post_to(engine, sink, "dot", proxy.port) as post:
        proxy.blackhole_at(b"\r\n.\r\n")
        assert await state_after(post) == "uncertain"
        assert sink.mails == []


async def test_a_reply_that_drips_and_one_without_an_end_are_cut_off(engine: AsyncEngine) -> None:
    async with Sink({"mail": [Rule(drip=0.2)]}) as sink, post_to(engine, sink, "mail") as post:
        assert await state_after(post) == "queued"
    endless = "\r\n".join(["250-more"] * 100_000)
    async with Sink({"ehlo": [Rule(endless)]}) as sink, post_to(engine, sink) as post:
        assert await state_after(post) == "queued"
        assert sink.mails == []


async def test_greylisted_three_times_it_is_sent_once(engine: AsyncEngine) -> None:
    async with Sink({"rcpt": [Rule("450 4.2.1 greylisted", times=3)]}) as sink, post_to(engine, sink) as post:
        id = await post.enqueue()
        for _ in range(6):
            await post.work(id)
        assert (await post.look(id)).status == "sent"
        assert len(sink.mails) == 1
