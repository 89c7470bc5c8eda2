"""What fault tests share: hand in mails, wait for what is under way, and judge all of it."""

import asyncio
import itertools
import time
from collections.abc import Callable
from uuid import UUID

from service.dev.chaos.oracle import Evidence, Row, violations
from service.dev.chaos.site import Site

_batches = itertools.count(1)


async def hand_in(site: Site, count: int) -> list[UUID]:
    """Hands in so many mails at once; their ids, once all are accepted."""
    batch = f"b{next(_batches)}"
    names = [f"{batch}-{number}" for number in range(count)]
    await asyncio.gather(*(site.caller.send(name) for name in names))
    assert not site.caller.unexpected, site.caller.unexpected
    return [id for name in names for id in site.caller.accepted[name]]


async def hand_in_to(site: Site, *kinds: str) -> UUID:
    """Hands in one email to a recipient of each kind: there, deferred, refused (see service.dev.chaos.sink)."""
    key = f"b{next(_batches)}"
    await site.caller.send(key, to=[f"{kind}-{key}@example.org" for kind in kinds])
    assert not site.caller.unexpected, site.caller.unexpected
    (id,) = site.caller.accepted[key]
    return id


async def row(site: Site, id: UUID) -> Row:
    """One mail as it is stored."""
    return (await site.books.rows())[id]


async def until(site: Site, ids: list[UUID], condition: Callable[[Row], bool], what: str, timeout: float = 60) -> None:
    """Waits until a condition holds for all of these mails."""

    async def holds() -> bool:
        rows = await site.books.rows()
        return all(condition(rows[id]) for id in ids)

    await site.until(holds, what, timeout)


def in_state(*states: str) -> Callable[[Row], bool]:
    """A condition: the message is in one of these states."""
    return lambda row: row.state in states


async def sent(site: Site, ids: list[UUID], timeout: float = 60) -> None:
    """Waits until all of these mails are sent."""
    await until(site, ids, in_state("done"), f"{len(ids)} mails are sent", timeout)


async def judge(site: Site) -> Evidence:
    """Lets all come to rest, and asserts that nothing is violated."""
    seen = await site.gather(await site.drain())
    found = violations(seen)
    assert not found, "\n".join(map(str, found))
    return seen


def received(site: Site, mail: Row) -> int:
    """How often the mail server took it."""
    return site.sink.count(mail.message_id)


def said(site: Site, verb: str) -> int:
    """How often the mail server heard a command."""
    return sum(session.verbs.count(verb) for session in site.sink.sessions)


async def eventually(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Waits for a condition of this process."""
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.02)
