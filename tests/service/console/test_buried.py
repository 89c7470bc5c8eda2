"""The failed tasks of Celery clients that only Redis keeps, among the console's dead letters."""

import re
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
import redis

from service.health.checks import DEAD
from tests.service.console.conftest import confirm, press
from tests.service.tasks.test_buried import entry

PLACE = "/console/dead-letters"
IDS = [str(UUID(int=number)) for number in range(1, 7)]
UNKNOWN = "no task is named 'shop.task': is the module that declares it deployed here?"
DIED = "its worker died 3 times while it ran"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """The server, with three tasks of an unknown name, two that crashed their workers, and an unreadable message."""
    with redis.Redis.from_url(redis_url) as connection:
        connection.lpush(DEAD, *(entry(id, UNKNOWN) for id in IDS[:3]))
        connection.lpush(DEAD, *(entry(id, DIED, "shop.heavy") for id in IDS[3:5]))
        connection.lpush(DEAD, entry(IDS[5], "not JSON", HOSTILE))
        yield connection


async def shown(browser: httpx.AsyncClient, **query: str) -> str:
    answer = await browser.get(PLACE, params=query)
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_they_are_listed_by_reason_in_plain_words(browser: httpx.AsyncClient, server: redis.Redis) -> None:
    found = await shown(browser)
    counts = re.findall(r'data-label="count">(\d+)<', found)
    assert counts == ["3", "2", "1"], "the largest group first"
    for words in ("No worker knows a task of this name", "Its worker crashed each time it ran", "cannot be read"):
        assert words in found, words
    assert 'Needs attention <span class="number">6</span>' in found
    assert '6<span class="unseen"> need attention</span>' in found
    assert HOSTILE not in found
    assert "/console/tasks/" not in found, "they have no page of their own"
    narrowed = await shown(browser, state="buried", actor="shop.heavy", reason="Quarantined")
    assert [id in narrowed for id in IDS] == [False, False, False, True, True, False]
    assert DIED in narrowed
    assert IDS[0] not in await shown(browser, kind="bounces")
    assert IDS[5] not in await shown(browser, before=IDS[5])


async def test_a_group_is_requeued_once_its_exact_number_is_confirmed(
    browser: httpx.AsyncClient, server: redis.Redis
) -> None:
    group = "buried\nshop.task\nno_such_task"
    assert "Requeue 3 tasks?" in (await press(browser, f"{PLACE}/requeue", group=group)).text
    assert server.llen("celery") == 0, "one click changes nothing"
    question, done = await confirm(browser, f"{PLACE}/requeue", group=group)
    assert "3 tasks will run again." in question
    assert done.headers["location"].endswith("done=requeued&n=3&of=3")
    assert (server.llen("celery"), server.llen(DEAD)) == (3, 3)
    again = await press(browser, f"{PLACE}/requeue", group=group)
    assert again.headers["location"].endswith("done=nothing")
    crashed = await press(browser, f"{PLACE}/requeue", group="buried\nshop.heavy\nQuarantined")
    assert "2 of them crashed their workers and may do so again." in crashed.text


async def test_those_that_are_selected_are_marked_as_done_beside_none_that_has_a_row(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, server: redis.Redis
) -> None:
    email = {"to": "ada@example.org", "subject": "Hello", "text": "It works."}
    waiting = (await api.post("/v1/emails", json=email)).json()["task_id"]
    chosen = [IDS[0], IDS[3], waiting, "nonsense"]
    question, done = await confirm(browser, f"{PLACE}/done", id=chosen)
    assert "Mark 2 tasks as done?" in question
    assert "This cannot be undone." in question
    assert done.headers["location"].endswith("done=removed&n=2")
    assert "Marked 2 tasks as done." in (await browser.get(done.headers["location"])).text
    assert (server.llen("celery"), server.llen(DEAD)) == (0, 4)
    assert (await api.get(f"/v1/tasks/{waiting}")).json()["state"] == "queued"
    for verb in ("delivered", "not-delivered"):
        left = await press(browser, f"{PLACE}/{verb}", id=IDS)
        assert left.headers["location"].endswith("done=nothing"), "they are no emails with an unknown outcome"
