"""A revoked key ends all that it opened within five seconds: stream tokens, feeds and jobs that are followed."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.access import keys
from service.access.secrets import new_key
from service.db import engine as db
from tests.service.conftest import MakeKey
from tests.service.feeds.listening import Listener, listen

WITHIN = 5.0  # seconds, as docs/security.md says
JOB = {"type": "activities.generate", "organization_id": "acme"}
INPUT = {"team_size": 8, "topic": "Harbour", "setting": "remote"}


@pytest.fixture
async def ada(api: httpx.AsyncClient) -> httpx.AsyncClient:
    """The API with a user whose feed can be followed."""
    assert (await api.put("/v1/users/ada", json={})).is_success
    return api


async def revoke(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE api_keys SET revoked_at = clock_timestamp()"))


async def assert_ends(stream: Listener, engine: AsyncEngine) -> None:
    await revoke(engine)
    async with asyncio.timeout(WITHIN):
        await stream.over.wait()


@pytest.mark.parametrize(("route", "kind"), [("stream", "http"), ("ws", "websocket")], ids=["sse", "ws"])
@pytest.mark.parametrize("by", ["key", "token"])
async def test_a_feed_that_is_followed_ends(
    ada: httpx.AsyncClient, engine: AsyncEngine, route: str, kind: str, by: str
) -> None:
    token = (await ada.post("/v1/users/ada/stream-token", json={})).json()["token"]
    path = f"/v1/users/ada/{route}"
    given: dict[str, Any] = {} if by == "key" else {"authorization": ""}
    async with listen(ada, path if by == "key" else f"{path}?token={token}", kind=kind, **given) as stream:
        await stream.next("ready")
        await assert_ends(stream, engine)
    async with listen(ada, f"{path}?token={token}", kind=kind, authorization="") as refused:
        async with asyncio.timeout(30):
            await refused.over.wait()
    assert refused.close_code == 4401 if kind == "websocket" else refused.status == 401


async def test_a_job_that_is_followed_ends(ada: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await ada.put("/v1/organizations/acme", json={"plan": "team", "trust_score": 80})
    job = (await ada.post("/v1/jobs", json={**JOB, "input": INPUT})).json()
    async with listen(ada, f"/v1/jobs/{job['id']}/stream") as stream:
        await stream.next("pending")
        await assert_ends(stream, engine)


async def test_streams_of_other_keys_go_on_and_all_are_asked_for_by_one_statement(
    ada: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey
) -> None:
    ring, seen = keys.Keyring(engine), []
    found = [await ring.find(await make_key()) for _ in range(3)]
    first, second, third = (each.key_id for each in found if each is not None)
    with ring.watch(first, lambda: seen.append(first)) as revoked, ring.watch(second) as other, ring.watch(third):
        async with db.transaction(db.sessions(engine)) as session:
            assert await keys.revoke(session, first)
        await ring._end_revoked()
        assert (revoked.over, other.over, seen) == (True, False, [first])
    assert not ring._watched


async def test_unknown_keys_evict_no_good_ones(
    engine: AsyncEngine, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MAX_CACHED", 5)
    ring, looks, key = keys.Keyring(engine), [], await make_key()
    look = ring._look

    async def counted(hashed: bytes) -> Any:
        looks.append(hashed)
        return await look(hashed)

    monkeypatch.setattr(ring, "_look", counted)
    good = await ring.find(key)
    strangers = [new_key("live") for _ in range(20)]
    assert [await ring.find(each) for each in strangers] == [None] * 20
    assert await ring.find(key) == good
    assert len(looks) == 21, "the good key was looked up once"
    assert await ring.find(strangers[-1]) is None
    assert len(looks) == 21, "an unknown one is not looked up again either"
    assert len(ring._unknown) == 5
