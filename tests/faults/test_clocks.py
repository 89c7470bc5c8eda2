"""Workers whose clocks are two hours off: Postgres' clock decides what is due and whose lease is over."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from service.dev.chaos.fleet import by_hand
from service.dev.chaos.sink import Rule
from service.dev.chaos.site import Site
from tests.faults.judging import hand_in, in_state, judge, row, sent, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def off_by(hours: str) -> dict[str, str]:
    """The environment of a process whose clock is so far off; durations are right."""
    found = find_spec("libfaketime")
    assert found is not None
    assert found.origin is not None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    if sys.platform != "linux" or not library.exists():
        pytest.skip("libfaketime comes ready for Linux only")
    return {"LD_PRELOAD": str(library), "FAKETIME": hours, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest_asyncio.fixture(loop_scope="module", params=["+2h", "-2h"])
async def astray(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """The site with one right worker, and one whose clock is off."""
    _, wrong = site.fleet.workers
    ours = wrong.environ
    await by_hand(wrong.kill)
    wrong.environ = ours | off_by(request.param)
    await by_hand(wrong.start)
    shown = datetime.fromisoformat(wrong.said.split('"at":"')[1][:19]).replace(tzinfo=UTC)
    assert abs(shown - datetime.now(UTC)) > timedelta(hours=1), "its clock is right: this would prove nothing"
    yield site
    await by_hand(wrong.kill)
    wrong.environ = ours
    await by_hand(wrong.start)


async def test_a_scheduled_mail_waits_for_its_time_and_the_others_do_not(astray: Site) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"to": "later@example.org", "subject": "Tides", "text": "x", "scheduled_at": at}
    later = await astray.caller.client.post("/v1/emails", json=body)
    assert later.status_code == 202, later.text
    id = UUID(later.json()["id"].removeprefix("em_"))
    astray.caller.accepted[str(id)] = {id}
    astray.sink.rules["rcpt"] = [Rule("450 4.2.1 later", times=5)]
    await sent(astray, await hand_in(astray, 20))
    await astray.books.ring([id] * 10)
    await asyncio.sleep(2)
    assert (await row(astray, id)).state == "queued"
    await judge(astray)


async def test_a_lease_is_over_when_postgres_says_so(astray: Site) -> None:
    """The right worker holds a mail for longer than a sweep: the one that is off does not take it."""
    _, wrong = astray.fleet.workers
    wrong.pause()
    astray.sink.rules["data"] = [Rule(delay=4.0, times=1)]
    (id,) = await hand_in(astray, 1)
    await until(astray, [id], in_state("running"), "it runs")
    wrong.resume()
    await sent(astray, [id])
    assert (await row(astray, id)).epoch == 1
    await judge(astray)
