"""One tenant's templates never fail another's email: memory, processes and turns are shared, and bounded in bytes."""

import asyncio
import os
import signal
import tracemalloc
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.common.fair import Turn
from service.core.cache import ByteCache
from service.templates.tenant import cache as shelf
from service.templates.tenant.cache import Shelf
from service.templates.tenant.compile import Job, Result
from service.templates.tenant.content import Words
from service.templates.tenant.sandbox_pool import Child, Killed, Lost, Renderers
from service.templates.tenant.sandbox_process import CACHE_BYTES, SHARE_BYTES, Desk

ORDINARY = Words(subject="Hello {{ name }}", html="<p>Hello {{ name }}, welcome.</p>" * 1_000)
LARGE = Words(subject="Hello", html="\U0001f600" * 250_000, text="\U0001f600" * 250_000)  # 2 MiB
SLOW = "{% for a in range(1000) %}{% for b in range(700) %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}"
GREEDY = "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a|length }}"


@pytest.fixture
async def renderers() -> AsyncIterator[Renderers]:
    made = Renderers(1)
    yield made
    await made.close()


def job(words: Words, place: str = "a/welcome/1/en", **given: str) -> Job:
    return Job(key="welcome", contents={"en": words}, name=place, owner=place.partition("/")[0], given=given)


async def test_what_one_tenant_fills_in_leaves_room_for_the_next(renderers: Renderers) -> None:
    for number in range(120):
        assert (await renderers.ask(job(LARGE, f"a/{number}/1/en"))).rendered
    (child,) = renderers._idle
    result = await renderers.ask(job(ORDINARY, "b/welcome/1/en", name="Ada"))
    assert result.rendered is not None
    assert result.rendered.subject == "Hello Ada"
    assert renderers._idle == [child]


async def test_a_process_that_died_while_it_was_idle_costs_no_email(renderers: Renderers) -> None:
    await renderers.ask(job(ORDINARY, name="Ada"))
    (child,) = renderers._idle
    os.kill(child.process.pid, signal.SIGKILL)
    made = await asyncio.gather(*(renderers.ask(job(ORDINARY, f"{n}/w/1/en", name="Bo")) for n in range(3)))
    assert all(each.rendered for each in made)


async def test_a_job_whose_process_is_killed_is_done_in_a_new_one(renderers: Renderers) -> None:
    await renderers.ask(job(ORDINARY, name="Ada"))
    (child,) = renderers._idle
    asked = asyncio.create_task(renderers.ask(job(Words(subject="s", html=SLOW), "a/slow/1/en")))
    while renderers._idle:  # noqa: ASYNC110 - until the process has the job
        await asyncio.sleep(0)
    os.kill(child.process.pid, signal.SIGKILL)
    assert (await asked).rendered
    assert renderers._idle[0].process.pid != child.process.pid


async def test_a_process_without_memory_says_so_and_ends() -> None:
    child = await Child.start()
    with pytest.raises(Lost):
        await child.ask(job(Words(subject="s", html=GREEDY)))
    assert await asyncio.to_thread(child.process.wait, 30) == 0
    await child.kill()


async def test_only_what_fails_in_a_new_process_too_has_failed(renderers: Renderers) -> None:
    await renderers.ask(job(ORDINARY, name="Ada"))
    with pytest.raises(Killed, match="too much memory"):
        await renderers.ask(job(Words(subject="s", html=GREEDY), "a/greedy/1/en"))
    assert (await renderers.ask(job(ORDINARY, name="Ada"))).rendered


async def test_a_process_keeps_bytes_of_templates_with_a_share_for_each_tenant() -> None:
    desk = Desk()
    assert desk.answer(job(ORDINARY, "b/welcome/1/en", name="Ada")).rendered
    for number in range(30):
        desk.answer(job(LARGE, f"a/{number}/1/en"))
    assert 0 < desk.kept.size_of("a") <= SHARE_BYTES
    assert "b/welcome/1/en" in desk.kept
    for number in range(40):
        desk.answer(job(LARGE, f"{number}/welcome/1/en"))
    assert CACHE_BYTES - SHARE_BYTES < desk.kept.size <= CACHE_BYTES


async def test_a_flood_of_one_tenant_delays_another_by_one_job(renderers: Renderers) -> None:
    order: list[str] = []

    async def ask(tenant: str) -> Result:
        result = await renderers.ask(job(ORDINARY, f"{tenant}/w/1/en", name="Ada"), Turn(tenant=tenant))
        order.append(tenant)
        return result

    flood = [asyncio.create_task(ask("a")) for _ in range(40)]
    await asyncio.sleep(0)
    await asyncio.gather(ask("b"), *flood)
    assert order.index("b") <= 2


async def test_versions_in_memory_do_not_hold_what_they_say(engine: AsyncEngine) -> None:
    tenant, contents = uuid4(), '{"en": {"subject": "s", "html": "%s"}, "de": {"subject": "s", "html": "x"}}'
    needs = '{"key": "k", "declared": {}, "known": [], "required": [], "links": [], "headline": []}'
    await store(engine, tenant, contents % ("\U0001f600" * 250_000), f'{{"en": {needs}, "de": {needs}}}')
    read = Shelf(engine)
    await read.version(tenant, "k0", 1)
    tracemalloc.start()
    try:
        versions = [await read.version(tenant, f"k{number}", 1) for number in range(30)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000  # what they say are 30 MB
    version = versions[7]
    assert version is not None
    assert (await read.words(version, "de")).html == "x"
    assert len((await read.words(version, "en")).html or "") == 250_000


async def test_what_a_process_knows_of_versions_is_bounded_in_bytes(engine: AsyncEngine) -> None:
    tenant = uuid4()
    known = ", ".join(f'"variable_{number}"' for number in range(20_000))
    needs = f'{{"key": "k", "declared": {{}}, "known": [{known}], "required": [], "links": [], "headline": []}}'
    await store(engine, tenant, '{"en": {"subject": "s", "html": "x"}}', f'{{"en": {needs}}}')
    read = Shelf(engine)
    for number in range(30):
        assert await read.version(tenant, f"k{number}", 1)
    assert read._versions.size <= shelf.SHARE_BYTES
    assert len(read._versions) < 30


async def store(engine: AsyncEngine, tenant: UUID, contents: str, needs: str) -> None:
    """Store a tenant with 30 templates k0 to k29."""
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO tenants (id, name) VALUES (:id, :name)"), {"id": tenant, "name": "t"}
        )
        await connection.execute(text("SELECT set_config('app.tenants', :id, true)"), {"id": f"{{{tenant}}}"})
        for number in range(30):
            values = {"tenant_id": tenant, "key": f"k{number}", "contents": contents, "needs": needs}
            await connection.execute(
                text("INSERT INTO templates (tenant_id, key, newest) VALUES (:tenant_id, :key, 1)"),
                {"tenant_id": tenant, "key": f"k{number}"},
            )
            await connection.execute(
                text(
                    "INSERT INTO template_versions (tenant_id, key, version, default_locale, contents, needs)"
                    " VALUES (:tenant_id, :key, 1, 'en', CAST(:contents AS jsonb), CAST(:needs AS jsonb))"
                ),
                values,
            )


def test_a_cache_is_bounded_in_bytes_and_an_owner_displaces_its_own_entries_first() -> None:
    now = 0.0
    cache: ByteCache[str, int] = ByteCache(100, 40, ttl=10, clock=lambda: now)
    for number in range(3):
        cache.put(f"b{number}", number, owner="b", size=10)
    for number in range(10):
        cache.put(f"a{number}", number, owner="a", size=15)
    assert [key for key in ("a7", "a8", "a9", "b0", "b1", "b2") if key in cache] == ["a8", "a9", "b0", "b1", "b2"]
    assert (cache.size, cache.size_of("a"), cache.size_of("b")) == (60, 30, 30)
    cache.put("large", 1, owner="a", size=41)
    assert cache.get("large") is None
    assert cache.get("b0") == 0  # used last
    for owner in "cdef":
        cache.put(owner, 1, owner=owner, size=15)
    assert cache.size <= 100
    assert cache.get("b0") == 0
    assert (cache.get("b1"), cache.get("a8")) == (None, 8)
    cache.put("b0", 5, owner="b", size=1)
    assert cache.get("b0") == 5
    now = 11
    assert cache.get("b0") is None
    cache.clear()
    assert (len(cache), cache.size, cache.size_of("c")) == (0, 0, 0)
