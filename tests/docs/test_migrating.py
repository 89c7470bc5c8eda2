"""What the migration pages say about Celery, Dramatiq and us is so."""

import inspect
import re
from pathlib import Path
from typing import Any, get_overloads

import celery
import pytest
from uuid_utils.compat import uuid7

import callboard_workers
from callboard_workers import DeclarationError, Done, Message, actor
from callboard_workers.actors.sender import Sender
from callboard_workers.celery import create_celery
from callboard_workers.middleware import Middleware
from callboard_workers.runtime import THREADS
from callboard_workers.testing import run_now, workbench
from service.settings import Settings
from tests.layout.repository import ROOT

CELERY, DRAMATIQ = (Path("docs", f"migrating-from-{name}.md") for name in ("celery", "dramatiq"))
OPTIONS = {name for overload in get_overloads(actor) for name in inspect.signature(overload).parameters}
OPTION = re.compile(r"^(\w+)=")


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines, f"no table below {heading}"
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[0].splitlines()]
    return [[cell.strip() for cell in row] for row in table[2:]]


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def refusal(**options: Any) -> str:
    """What a declaration with these options is told."""

    async def example() -> None: ...

    with pytest.raises(DeclarationError) as refused:
        actor(**options)(example)
    return str(refused.value)


@pytest.mark.parametrize("page", [CELERY, DRAMATIQ], ids=str)
def test_every_option_named_for_us_is_one(page: Path) -> None:
    named = {found[1] for row in rows(page, "Declaring") for word in words(row[1]) if (found := OPTION.match(word))}
    assert len(named) > 12
    assert named - OPTIONS == set()


@pytest.mark.parametrize("page", [CELERY, DRAMATIQ], ids=str)
def test_every_option_of_theirs_that_is_not_ours_is_refused(page: Path) -> None:
    theirs = {found[1] for row in rows(page, "Declaring") for word in words(row[0]) if (found := OPTION.match(word))}
    foreign = theirs - OPTIONS
    assert len(foreign) >= 7
    for option in foreign:
        assert f"{option}: unknown option" in refusal(**{option: 1})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"priority": 9}, "Celery's 0 comes first"),
        ({"max_retries": None}, "whole number from 0 to 32767"),
        ({"time_limit": 86_400_001}, "seconds, not milliseconds"),
        ({"min_backoff": 15_000}, "milliseconds"),
        ({"max_backoff": 15_000}, "milliseconds"),
        ({"max_age": 15_000}, "milliseconds"),
        ({"result_ttl": 15_000}, "milliseconds"),
    ],
)
def test_what_would_be_misunderstood_is_refused_with_a_hint(options: dict[str, Any], told: str) -> None:
    assert told in refusal(**options)


def test_the_defaults_named_for_celery_are_celerys() -> None:
    app = celery.Celery("defaults", set_as_current=False)

    @app.task(name="defaults.task", shared=False)
    def task() -> None: ...

    assert (task.max_retries, task.default_retry_delay, task.time_limit, task.acks_late) == (3, 180, None, False)
    wrapped = inspect.getsource(celery.app.autoretry)
    assert re.search(r"'retry_backoff_max',\s*600", wrapped)
    assert celery.__version__.startswith("5.7.")


def test_the_defaults_named_for_us_are_ours() -> None:
    @actor
    async def example() -> None: ...

    policy = example.policy
    assert (policy.max_retries, policy.time_limit, policy.grace) == (10, 60.0, 5.0)
    assert (policy.backoff.min, policy.backoff.max) == (1.0, 3600.0)
    assert (policy.max_crashes, policy.result, policy.expires) == (3, None, None)
    app = create_celery("redis://127.0.0.1:1/0", None, None, [example])
    assert (app.conf.task_acks_late, app.conf.accept_content) == (True, ["json"])
    assert Settings.from_env({}).worker_concurrency == 500
    assert THREADS == 32
    assert app.conf.worker_pool == "callboard_workers.celery.pool:Pool"


def test_beat_takes_its_schedule_from_the_app() -> None:
    schedule = {"tick": {"task": "demo.work", "schedule": 10.0}}
    assert create_celery("redis://127.0.0.1:1/0", beat_schedule=schedule).conf.beat_schedule == schedule


async def test_the_verbs_of_an_actor_are_those_named() -> None:
    @actor(name="example.add")
    async def add(x: int, y: int = 0) -> int:
        return x + y

    options = set(inspect.signature(Sender.options).parameters)
    assert {"delay", "at", "expires", "queue", "priority", "id"} <= options
    assert isinstance(add.options(delay=10, priority="low").message(1), Message)
    assert await add(1, 2) == 3
    assert await run_now(add, 1, 2) == Done(result=3)
    async with workbench() as bench:
        await add.send(1, 2)
        assert [outcome for _, outcome in await bench.drain()] == [Done(result=3)]


async def test_retry_when_overrules_max_retries_as_in_dramatiq() -> None:
    seen: list[int] = []

    def again(retries: int, error: Exception) -> bool:
        seen.append(retries)
        return retries < 2

    @actor(name="example.again", max_retries=0, retry_when=again)
    async def fail() -> None:
        raise OSError

    async with workbench() as bench:
        await fail.send()
        assert len(await bench.finish()) == 3
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("limits", [{"rate": "10/m"}, {"concurrency": 3}, {"unique": True}, {"debounce": True}])
async def test_limits_are_for_durable_messages(limits: dict[str, Any]) -> None:
    made = {"unique": callboard_workers.Unique(), "debounce": callboard_workers.Debounce(wait=1)}

    @actor(name="example.limited", **{name: made.get(name, value) for name, value in limits.items()})
    async def limited() -> None: ...

    async with workbench():
        with pytest.raises(callboard_workers.DurableOnly):
            await limited.send()


def test_the_hooks_of_a_middleware_are_those_named() -> None:
    hooks = {name for name, member in vars(Middleware).items() if inspect.isfunction(member) and name[0] != "_"}
    named = {
        found
        for row in rows(DRAMATIQ, "Middleware")
        for word in words(row[1])
        for found in re.findall(r"^(?:async def )?(\w+)\(", word)
    }
    assert named == hooks - {"lost"}


def test_ids_are_uuids_and_are_celerys_task_ids() -> None:
    @actor(name="example.one")
    async def one() -> None: ...

    id = uuid7()
    assert one.options(id=id).message().task_id == str(id)


def test_every_trap_names_a_test_that_exists() -> None:
    page = (ROOT / "docs/migrating-from-celery.md").read_text("utf-8")
    table = page.partition("| trap | stock Celery | test |\n|---|---|---|\n")[2].splitlines()
    named = [re.search(r"`(tests/[\w/]+\.py)::(\w+)` \|$", row) for row in table if row]
    assert len(named) >= 18
    for row, found in zip(table, named, strict=True):
        assert found, row
        source = (ROOT / found[1]).read_text("utf-8")
        assert re.search(rf"^(async )?def {found[2]}\(", source, re.MULTILINE), found[0]
