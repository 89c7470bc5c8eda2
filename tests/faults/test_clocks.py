"""Workers whose clocks are two hours off: Postgres' clock decides what is due and whose lease is over."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from service.dev.chaos.fleet import Worker, by_hand
from service.dev.chaos.sink import Rule
from service.dev.chaos.site import Site
from tests.conftest import lacking
from tests.faults.judging import hand_in, in_state, judge, row, sent, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


DUE = """
UPDATE messages SET due_at = least(due_at, clock_timestamp()), ring_at = clock_timestamp()
WHERE id = ANY($1) AND state = 'queued' AND due_at > clock_timestamp()
"""


def off_by(hours: str) -> dict[str, str]:
    """The environment of a process whose clock is so far off; durations are right."""
    found = find_spec("libfaketime")
    assert found is not None
    assert found.origin is not None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    if sys.platform != "linux" or not library.exists():
        lacking("libfaketime comes ready for Linux only")
    return {"LD_PRELOAD": str(library), "FAKETIME": hours, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["+2h", "-2h"])
async def wrong(running: Site, request: pytest.FixtureRequest) -> Worker:
    """The second worker, with a clock that is off; the first one's is right."""
    worker = running.fleet.workers[1]
    await by_hand(worker.kill)
    worker.environ |= off_by(request.param)
    await by_hand(worker.start)
    shown = datetime.fromisoformat(worker.said.split('"at":"')[1][:19]).replace(tzinfo=UTC)
    assert abs(shown - datetime.now(UTC)) > timedelta(hours=1), "its clock is right: this would prove nothing"
    return worker


async def test_a_scheduled_mail_waits_for_its_time_and_the_others_do_not(site: Site, wrong: Worker) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"to": "later@example.org", "subject": "Tides", "text": "x", "scheduled_at": at}
    later = await site.caller.client.post("/v1/emails", json=body)
    assert later.status_code == 202, later.text
    id = UUID(later.json()["id"].removeprefix("em_"))
    site.caller.accepted[str(id)] = {id}
    site.caller.recipients[str(id)] = ("later@example.org",)
    site.sink.rules["rcpt"] = [Rule("450 4.2.1 later", times=5)]
    others = await hand_in(site, 20)

    async def they_are_sent() -> bool:
        await site.books.fetch(DUE, others)  # a server that defers is tried again after twenty minutes
        rows = await site.books.rows()
        return all(rows[each].state == "done" for each in others)

    await site.until(they_are_sent, "the others are sent", 120)
    await site.books.ring([id] * 10)
    await asyncio.sleep(2)
    assert (await row(site, id)).state == "queued"
    await judge(site)


async def test_a_lease_is_over_when_postgres_says_so(site: Site, wrong: Worker) -> None:
    """The right worker holds a mail for longer than a sweep: the one that is off does not take it."""
    wrong.pause()
    site.sink.rules["data"] = [Rule(delay=4.0, times=1)]
    (id,) = await hand_in(site, 1)
    await until(site, [id], in_state("running"), "it runs")
    wrong.resume()
    await sent(site, [id])
    assert (await row(site, id)).epoch == 1
    await judge(site)


async def test_five_days_of_trying_are_counted_by_postgres_clock(site: Site, wrong: Worker) -> None:
    """Alone, a worker whose clock is six days ahead tries an email again that the server defers."""
    first = site.fleet.workers[0]
    await by_hand(first.kill)
    await by_hand(wrong.kill)
    usual = dict(wrong.environ)
    wrong.environ |= off_by("+6d")
    try:
        await by_hand(wrong.start)
        site.sink.rules["rcpt"] = [Rule("450 4.2.1 later", times=1)]
        ids = await hand_in(site, 1)
        await until(site, ids, in_state("queued", "done", "dead"), "it was tried")
        await site.drain()
        await sent(site, ids)
    finally:
        await by_hand(wrong.kill)
        wrong.environ = usual
        await by_hand(wrong.start)
        await by_hand(first.start)
    await judge(site)
