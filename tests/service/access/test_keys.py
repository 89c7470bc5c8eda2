"""API keys: their text, their life, and the commands that make them."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.context import Correlation, correlation
from service.access import keys
from service.access.secrets import digest, is_whole, new_key
from service.cli.main import callboard
from service.db import engine as db
from service.settings import Settings
from tests.service.conftest import MakeKey, client_of


@pytest.mark.parametrize("mode", ["live", "test"])
def test_a_new_key_is_whole_and_says_its_mode(mode: keys.Mode) -> None:
    key = new_key(mode)
    assert is_whole(key)
    assert re.fullmatch(rf"cb_{mode}_[0-9A-Za-z]{{38}}", key)
    assert new_key(mode) != key
    assert len(digest(key)) == 32


@given(st.integers(0, 45), st.sampled_from("0aZ_~"))
def test_a_typing_error_is_found(place: int, character: str) -> None:
    key = new_key("live")
    wrong = key[:place] + character + key[place + 1 :]
    assert is_whole(wrong) == (wrong == key)


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(given_text: str) -> None:
    assert not is_whole(given_text)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings) as made:
        yield made


async def status_of(client: httpx.AsyncClient, key: str) -> int:
    return (await client.get("/v1/requests/none", headers={"Authorization": f"Bearer {key}"})).status_code


async def test_a_revoked_key_is_refused_within_five_seconds(
    client: httpx.AsyncClient, settings: Settings, make_key: MakeKey, engine: AsyncEngine
) -> None:
    key = await make_key()
    assert await status_of(client, key) == 404
    async with db.transaction(db.sessions(engine)) as session:
        key_id = (await session.execute(text("SELECT id FROM api_keys"))).scalar_one()
        assert await keys.revoke(session, key_id)
    deadline = time.monotonic() + 5
    asked = time.monotonic()
    while await status_of(client, key) != 401:
        assert asked < deadline
        await asyncio.sleep(0.1)
        asked = time.monotonic()
    async with db.transaction(db.sessions(engine)) as session:
        assert not await keys.revoke(session, key_id)


async def test_an_expired_key_is_refused(client: httpx.AsyncClient, make_key: MakeKey, engine: AsyncEngine) -> None:
    key = await make_key()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE api_keys SET expires_at = now() - interval '1 s'"))
    assert await status_of(client, key) == 401


async def test_only_the_hash_is_stored(make_key: MakeKey, engine: AsyncEngine) -> None:
    key = await make_key()
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM api_keys"))).one()
    assert row.hash == digest(key)
    assert key not in str(row)
    assert key.startswith(row.prefix)


async def test_last_use_is_noted(client: httpx.AsyncClient, make_key: MakeKey, engine: AsyncEngine) -> None:
    ring = keys.Keyring(engine)
    await ring.find(await make_key())
    await ring.note_used()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT last_used_at FROM api_keys"))).scalar_one() is not None


def run(settings: Settings, *arguments: str) -> Result:
    environ = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    return CliRunner().invoke(callboard, list(arguments), env=environ)


def test_a_key_is_made_listed_and_revoked_from_the_command_line(settings: Settings) -> None:
    made = run(settings, "keys", "create", "--tenant", "shop", "--scope", "emails:send", "--test", "--name", "ci")
    assert made.exit_code == 0, made.output
    assert is_whole(made.stdout.strip())
    listed = run(settings, "keys", "list", "--tenant", "shop")
    assert made.stdout.strip() not in listed.output
    key_id = re.search(r"ak_[0-9a-f]{32}", made.stderr)
    assert key_id is not None
    assert run(settings, "keys", "revoke", key_id[0]).exit_code == 0
    assert run(settings, "keys", "revoke", key_id[0]).exit_code == 1
    refused = run(settings, "keys", "revoke", "nonsense")
    assert refused.exit_code == 1
    assert "keys list" in refused.output
    assert key_id[0] in run(settings, "keys", "list").output, "whole, also where a line is short"


def test_a_scope_that_no_route_asks_for_is_refused_and_the_others_are_named(settings: Settings) -> None:
    wrong = ["--scope", "emails:sned", "--scope", "emails:send", "--scope", "nonsense"]
    refused = run(settings, "keys", "create", "--tenant", "shop", *wrong)
    assert refused.exit_code == 2
    assert "No route asks for emails:sned, nonsense. There are emails:read, " in refused.output
    assert "emails:send" in refused.output
    assert run(settings, "keys", "list", "--tenant", "shop").output.startswith("No keys yet")
    good = ("*", "emails:*", "jobs:read", "operator", "admin")
    arguments = [word for scope in good for word in ("--scope", scope)]
    assert run(settings, "keys", "create", "--tenant", "shop", *arguments).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "--tenant", ""),
        ("keys", "create", "--tenant", "x" * 101),
        ("keys", "create", "--tenant", "one\nak_0 live two"),
        ("keys", "create", "--tenant", "one", "--name", "\x1b[31mred"),
        ("keys", "create", "--tenant", "\udcff"),
        ("keys", "list", "--tenant", "\udcff"),
        ("trace", ""),
        ("trace", "\udcff"),
        ("dead", "--actor", "\udcff"),
        ("resolve", "x", "--as", "done", "--reason", "\udcff"),
    ],
    ids=ascii,
)
def test_what_is_not_one_line_of_text_is_refused_before_anything_is_asked(arguments: tuple[str, ...]) -> None:
    done = CliRunner(env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}).invoke(callboard, arguments)
    assert done.exit_code == 2, done.output
    assert "are not taken" in done.output or "characters; " in done.output


def test_a_key_is_rotated_and_both_work_until_the_overlap_is_over(settings: Settings) -> None:
    made = run(settings, "keys", "create", "--tenant", "shop", "--scope", "emails:send", "--expires-days", "90")
    key_id = re.search(r"ak_[0-9a-f]{32}", made.stderr)
    assert key_id is not None
    turned = run(settings, "keys", "rotate", key_id[0], "--overlap-hours", "48")
    assert turned.exit_code == 0, turned.output
    old, new, days = asyncio.run(found(settings, made.stdout.strip(), turned.stdout.strip()))
    assert old is not None
    assert new is not None
    assert (old.tenant_id, old.scopes, old.mode) == (new.tenant_id, new.scopes, new.mode)
    assert old.key_id != new.key_id
    assert days == [2, 90]
    assert run(settings, "keys", "rotate", key_id[0], "--overlap-hours", "0").exit_code == 0
    assert asyncio.run(found(settings, made.stdout.strip()))[0] is None
    assert run(settings, "keys", "rotate", key_id[0]).exit_code == 1


async def found(settings: Settings, *texts: str) -> list[Any]:
    """What each key stands for, then the days after which the first two made end."""
    engine = db.create_engine(settings)
    ring = keys.Keyring(engine, patience=30.0)
    try:
        seen = [await ring.find(key) for key in texts]
        ends = "SELECT round(extract(epoch FROM expires_at - now()) / 86400)::int FROM api_keys ORDER BY id LIMIT 2"
        async with engine.connect() as connection:
            return [*seen, list((await connection.execute(text(ends))).scalars())]
    finally:
        await engine.dispose()


async def test_a_key_that_is_not_whole_is_refused_without_a_look() -> None:
    nowhere = db.create_engine(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    ring = keys.Keyring(nowhere)
    assert await ring.find("cb_live_" + "a" * 38) is None
    with pytest.raises(OSError):  # noqa: PT011 (a whole one is looked up)
        await ring.find(keys.new_key("live"))


async def test_a_look_that_many_wait_for_is_nobodys() -> None:
    nowhere = db.create_engine(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    seen: list[Correlation] = []
    event.listen(nowhere.sync_engine, "do_connect", lambda *_: seen.append(correlation.get()))
    mark = correlation.set(Correlation(request_id="the-first"))
    try:
        with pytest.raises(OSError):  # noqa: PT011
            await keys.Keyring(nowhere).find(keys.new_key("live"))
    finally:
        correlation.reset(mark)
    assert seen
    assert set(seen) == {Correlation()}


def test_the_command_says_that_postgres_is_away(settings: Settings) -> None:
    away = CliRunner().invoke(callboard, ["keys", "list"], env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert away.exit_code == 1
    assert "Postgres does not answer" in away.output
    assert "Traceback" not in away.output
