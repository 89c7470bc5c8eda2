"""Live streams: the same by SSE and WebSocket, nothing lost on a reconnect, a slow reader hurts only itself."""

import asyncio
import contextlib
import dataclasses
import json
import time
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.context import Correlation, attempt_ids, correlation
from service.feeds import follow, live, stream_api, stream_tokens
from service.feeds.signals import Herald, Word
from service.settings import Settings
from tests.service.conftest import MakeKey, client_of, working
from tests.service.feeds.listening import Listener, every_connection, listen, state_of, until_logged
from tests.service.notifications.conftest import Desk, Sql, desk_of

CROWD = 200
KINDS = pytest.mark.parametrize(("route", "kind"), [("stream", "http"), ("ws", "websocket")], ids=["sse", "ws"])


@KINDS
async def test_what_happens_is_told_as_it_happens(desk: Desk, route: str, kind: str) -> None:
    await desk.deliver(recipients={"users": ["ada"]}, data={"n": 0})
    async with listen(desk.api, f"/v1/users/ada/{route}", kind=kind) as ada:
        ready = await ada.next("ready")
        assert (ready.id, ready.data) == ("1", {"seq": 1, "unread": 1, "unseen": 1})
        await desk.deliver(recipients={"users": ["bob"]}, data={"n": -1})
        for number in (1, 2):
            await desk.deliver(recipients={"users": ["ada"]}, data={"n": number})
        told = await ada.several(2)
        assert [(event.id, event.data["seq"], event.data["data"]) for event in told] == [
            ("2", 2, {"n": 1}),
            ("3", 3, {"n": 2}),
        ]
        [newest, *_] = (await desk.api.get("/v1/users/ada/feed")).json()["items"]
        assert newest == told[1].data
        await desk.api.post("/v1/users/ada/feed/read", json={"up_to": 2})
        assert (await ada.next("counts")).data == {"unread": 1, "unseen": 1}


@KINDS
async def test_who_comes_back_misses_nothing_and_is_told_nothing_twice(desk: Desk, route: str, kind: str) -> None:
    await desk.api.put("/v1/users/ada", json={})
    async with listen(desk.api, f"/v1/users/ada/{route}", kind=kind) as ada:
        await ada.next("ready")
        await desk.deliver(recipients={"users": ["ada"]})
        [first] = await ada.several(1)
    for _ in range(3):
        await desk.deliver(recipients={"users": ["ada"]})
    path = f"/v1/users/ada/{route}"
    back = listen(desk.api, path, kind=kind, **{"Last-Event-ID": str(first.id)})
    by_query = listen(desk.api, f"{path}?last_event_id={first.id}", kind=kind)
    for again in (back, by_query):
        async with again as ada:
            assert (await ada.next("ready")).id == "1"
            assert [event.id for event in await ada.several(3)] == ["2", "3", "4"]


async def test_a_long_absence_is_caught_up_page_by_page(desk: Desk, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PAGE", 3)
    monkeypatch.setattr(follow, "BEHIND", 5)
    for _ in range(10):
        await desk.deliver(recipients={"users": ["ada"]})
    async with listen(desk.api, "/v1/users/ada/stream", **{"Last-Event-ID": "0"}) as ada:
        assert [event.id for event in await ada.several(10)] == [str(number) for number in range(1, 11)]


@KINDS
async def test_a_slow_reader_holds_up_nobody_and_is_told_to_come_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, route: str, kind: str
) -> None:
    monkeypatch.setattr(follow, "BEHIND", 4)
    await desk.api.put("/v1/users/ada", json={})
    path = f"/v1/users/ada/{route}"
    async with listen(desk.api, path, kind=kind) as slow, listen(desk.api, path, kind=kind) as quick:
        await slow.next("ready")
        await quick.next("ready")
        slow.taking.clear()
        for _ in range(9):
            await desk.deliver(recipients={"users": ["ada"]})
            await quick.several(1)
        slow.taking.set()
        lagged = await slow.next("lagged")
        assert lagged.data["last_seq"] == 9
        async with asyncio.timeout(30):
            await slow.over.wait()
        assert slow.close_code == (1013 if kind == "websocket" else None)
    seen = str(lagged.data["seq"])
    async with listen(desk.api, path, kind=kind, **{"Last-Event-ID": seen}) as back:
        assert [event.id for event in await back.several(9 - int(seen))] == [str(n) for n in range(int(seen) + 1, 10)]


@KINDS
async def test_who_never_reads_is_cut_off(desk: Desk, monkeypatch: pytest.MonkeyPatch, route: str, kind: str) -> None:
    monkeypatch.setattr(stream_api, "PATIENCE", 0.2)
    await desk.api.put("/v1/users/ada", json={})
    async with listen(desk.api, f"/v1/users/ada/{route}", kind=kind) as dead:
        await dead.next("ready")
        dead.taking.clear()
        await desk.deliver(recipients={"users": ["ada"]})
        streams = state_of(desk.api).runtime.state[live.KEY]
        async with asyncio.timeout(30):
            while streams._keys:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.01)
    assert not streams._seats


async def test_a_crowd_that_never_reads_holds_up_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "BEHIND", 5)
    monkeypatch.setattr(stream_api, "PATIENCE", 600)
    await desk.api.put("/v1/users/ada", json={})
    async with contextlib.AsyncExitStack() as stack:

        async def dead() -> Listener:
            found = await stack.enter_async_context(listen(desk.api, "/v1/users/ada/stream"))
            await found.next("ready", within=60)
            found.taking.clear()
            return found

        crowd = await asyncio.gather(*(dead() for _ in range(CROWD)))
        quick = await stack.enter_async_context(listen(desk.api, "/v1/users/ada/stream"))
        await quick.next("ready")
        for number in range(1, 21):
            await desk.deliver(recipients={"users": ["ada"]})
            assert [event.id for event in await quick.several(1)] == [str(number)]
        for each in crowd:
            each.taking.set()
            await each.next("lagged", within=60)  # what waits for somebody who does not read is bounded


@KINDS
async def test_a_stream_outlives_a_while_without_a_connection_to_postgres(
    settings: Settings, make_key: MakeKey, engine: AsyncEngine, route: str, kind: str
) -> None:
    path, few = f"/v1/users/ada/{route}", dataclasses.replace(settings, db_pool_size=4, db_pool_timeout=0.1)
    async with client_of(few) as api, desk_of(api, engine, REDIS_URL=settings.redis_url) as desk:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        await api.put("/v1/users/ada", json={})
        async with listen(api, path, kind=kind) as ada:
            await ada.next("ready")
            told = await desk.notify(recipients={"users": ["ada"]})
            with structlog.testing.capture_logs() as logs:
                async with every_connection(few, state_of(api).engine):
                    await desk.work(told)
                    await until_logged(logs, "feed_away")
            assert not ada.over.is_set()
            assert [event.id for event in await ada.several(1)] == ["1"]


async def test_without_redis_streams_look_by_themselves(
    settings: Settings, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "ALONE", 0.1)
    nowhere = dataclasses.replace(settings, redis_url="redis://127.0.0.1:1/0")
    async with client_of(nowhere) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        await api.put("/v1/users/ada", json={})
        async with listen(api, "/v1/users/ada/stream") as ada:
            await ada.next("ready")
            async with working(state_of(api).runtime) as runtime:
                await Desk(api, runtime).deliver(recipients={"users": ["ada"]})
            assert [event.id for event in await ada.several(1)] == ["1"]


async def test_what_serves_every_stream_bears_the_ids_of_none(desk: Desk) -> None:
    await desk.api.put("/v1/users/ada", json={})
    with structlog.testing.capture_logs([attempt_ids]) as logs:
        async with listen(desk.api, "/v1/users/ada/stream", **{"x-request-id": "the-first"}) as ada:
            await ada.next("ready")
            state = state_of(desk.api)
            streams = state.runtime.state[live.KEY]
            async with asyncio.timeout(60):
                while not streams._hearing:  # noqa: ASYNC110 (nothing tells)
                    await asyncio.sleep(0.01)
            await state.redis.client_kill_filter(_type="pubsub", skipme=True)
            await until_logged(logs, "wakeups_lost")
    [lost] = [entry for entry in logs if entry["event"] == "wakeups_lost"]
    assert not lost.keys() & {"request_id", "tenant"}


async def test_words_that_are_said_together_bear_the_ids_of_none() -> None:
    herald = Herald(Settings.from_env({"REDIS_URL": "redis://127.0.0.1:1/0"}))
    mark = correlation.set(Correlation(request_id="the-first"))
    try:
        with structlog.testing.capture_logs([attempt_ids]) as logs:
            herald.say(Word(users=[1]))
            await until_logged(logs, "wakeup_lost")
    finally:
        correlation.reset(mark)
        await herald.close()
    assert "request_id" not in logs[0]


@KINDS
@pytest.mark.parametrize("id", ["2", "-1", "1e3", "x", "9" * 19])
async def test_a_number_that_never_was_is_refused(desk: Desk, route: str, kind: str, id: str) -> None:
    await desk.deliver(recipients={"users": ["ada"]})
    async with listen(desk.api, f"/v1/users/ada/{route}?last_event_id={id}", kind=kind) as ada:
        assert await refusal(ada) == (400, "bad-last-event-id")


async def refusal(listener: Listener) -> tuple[int, str]:
    """With what a stream was refused: the status, and the code of the problem."""
    async with asyncio.timeout(30):
        await listener.over.wait()
    if listener.kind == "http":
        return listener.status, json.loads(listener.body)["code"]
    told = await listener.next("error")
    assert listener.close_code == 4000 + told.data["status"]
    return told.data["status"], told.data["code"]


@KINDS
async def test_a_browser_follows_with_a_token_that_is_good_for_one_user(
    desk: Desk, make_key: MakeKey, settings: Settings, route: str, kind: str
) -> None:
    await desk.deliver(recipients={"users": ["ada", "bob"]})
    answer = await desk.api.post("/v1/users/ada/stream-token", json={"ttl": 60})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    token = answer.json()["token"]
    key = desk.api.headers.pop("Authorization")
    async with listen(desk.api, f"/v1/users/ada/{route}?token={token}&last_event_id=0", kind=kind) as ada:
        assert [event.id for event in await ada.several(1)] == ["1"]
        if kind == "http":
            assert ada.headers["access-control-allow-origin"] == "*"
    grant = stream_tokens.read(settings.secret_key, token, 0)
    assert grant is not None
    over = stream_tokens.make(settings.secret_key, stream_tokens.Grant(**{**_fields(grant), "expires": 1}))
    forged = stream_tokens.make("another secret of 16", grant)
    for wrong in (over, forged, token[:-3], "st_", "x"):
        async with listen(desk.api, f"/v1/users/ada/{route}?token={wrong}", kind=kind) as ada:
            assert await refusal(ada) == (401, "bad-token")
    async with listen(desk.api, f"/v1/users/bob/{route}?token={token}", kind=kind) as bob:
        assert await refusal(bob) == (401, "bad-token")
    async with listen(desk.api, f"/v1/users/ada/{route}", kind=kind) as nobody:
        assert await refusal(nobody) == (401, "unauthenticated")
    assert (await desk.api.get(f"/v1/users/ada/feed?token={token}")).status_code == 401
    desk.api.headers["Authorization"] = f"Bearer {await make_key('users:read')}"
    async with listen(desk.api, f"/v1/users/ada/{route}", kind=kind) as ada:
        assert await refusal(ada) == (403, "scope-missing")
    desk.api.headers["Authorization"] = key
    async with listen(desk.api, f"/v1/users/nobody/{route}", kind=kind) as ada:
        assert await refusal(ada) == (404, "unknown-user")


def _fields(grant: stream_tokens.Grant) -> dict[str, Any]:
    return {name: getattr(grant, name) for name in grant.__struct_fields__}


def test_a_token_is_read_only_as_it_was_made() -> None:
    grant = stream_tokens.Grant(tenant_id=UUID(int=1), key_id=UUID(int=2), mode="live", user_id="ada", expires=100)
    token = stream_tokens.make("s" * 16, grant)
    assert stream_tokens.read("s" * 16, token, 99.9) == grant
    assert stream_tokens.read("s" * 16, token, 100) is None
    changed = [
        token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :] for place in range(len(token) - 1)
    ]
    assert {stream_tokens.read("s" * 16, wrong, 0) for wrong in changed} == {None}


async def test_a_key_has_only_so_many_streams(settings: Settings, make_key: MakeKey) -> None:
    async with client_of(dataclasses.replace(settings, stream_limit=2)) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        await api.put("/v1/users/ada", json={})
        async with listen(api, "/v1/users/ada/stream") as one, listen(api, "/v1/users/ada/ws", kind="websocket") as two:
            await one.next("ready")
            await two.next("ready")
            async with listen(api, "/v1/users/ada/stream") as three:
                assert await refusal(three) == (429, "rate-limited")
            async with listen(api, "/v1/users/ada/ws", kind="websocket") as four:
                assert await refusal(four) == (429, "rate-limited")
        async with listen(api, "/v1/users/ada/stream") as five:
            await five.next("ready")


async def test_streams_end_with_the_process_and_say_so(settings: Settings, make_key: MakeKey) -> None:
    began = time.monotonic()
    async with client_of(settings) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        await api.put("/v1/users/ada", json={})
        one, two = listen(api, "/v1/users/ada/stream"), listen(api, "/v1/users/ada/ws", kind="websocket")
        sse, ws = await one.__aenter__(), await two.__aenter__()
        await sse.next("ready")
        await ws.next("ready")
    assert sse.over.is_set()
    assert (ws.over.is_set(), ws.close_code) == (True, 1012)
    assert time.monotonic() - began < 60
    await one.__aexit__(None, None, None)
    await two.__aexit__(None, None, None)
