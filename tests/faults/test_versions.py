"""An older version beside this one, over one database, while mail flows: nothing is lost, nothing is sent twice.

The older version is the real one: the last before the schema below, taken out of this repository's history.
"""

import asyncio
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import redis.asyncio as redis

from callboard_workers.redis.keys import Keys
from service.db import migrate
from service.db.engine import create_engine
from service.dev.chaos.caller import Caller
from service.dev.chaos.fleet import ROOT, Worker, by_hand
from service.dev.chaos.site import Site, open_site
from service.dev.stack import Stack
from service.settings import Settings
from tests.conftest import lacking
from tests.faults.judging import hand_in, judge, sent

SINCE = "migrations/versions/20261122_evidence.py"
"""What runs beside this version is the version before this migration, and all since."""
AT_ONCE = 5


def git(*arguments: str) -> bytes:
    """What git says. Where the history was not brought along, there is no older version to run."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        lacking("git is not here")
    if done.returncode != 0:
        pytest.skip(f"the history is not here: {done.stderr.decode(errors='replace').strip()[:200]}")
    return done.stdout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the older version."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", SINCE).decode().split()
    if not added:
        pytest.skip("the history is not here")
    place = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=BytesIO(git("archive", f"{added[-1]}^", "service", "workers", "migrations"))) as tree:
        tree.extractall(place, filter="data")
    return place


def run_there(older: Path, environ: dict[str, str], *arguments: str) -> str:
    """A command of the older version."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=older,
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def heads(older: Path) -> tuple[str, str]:
    """The schema of the older version, and of this one."""
    chain = "\n".join(path.read_text() for path in (older / "migrations/versions").glob("*.py"))
    revisions, befores = (set(re.findall(rf'^{name} = "(\w+)"', chain, re.M)) for name in ("revision", "down_revision"))
    [old] = revisions - befores
    return old, migrate.head()


@asynccontextmanager
async def under_load(site: Site) -> AsyncIterator[None]:
    """Inside, mail is handed in without a pause."""
    over = asyncio.Event()

    async def pump() -> None:
        while not over.is_set():
            await hand_in(site, AT_ONCE)

    pumps = [asyncio.create_task(pump()) for _ in range(2)]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*pumps)


async def rest(site: Site) -> None:
    """Everything is sent; what failed while a table changed is tried again, later."""
    await site.drain()
    await sent(site, site.caller.ids)


async def set_aside(site: Site) -> None:
    """Clocks of this version ring for tasks that the older one does not know: it sets them aside, and says so."""
    async with redis.Redis.from_url(site.books.redis_url) as server:
        letters = [msgspec.msgpack.decode(each) for each in await cast("Any", server.lrange(Keys().dead, 0, -1))]
        unknown = [each for each in letters if each["reason"].startswith("no task is named")]
        assert letters == unknown
        await server.delete(Keys().dead)


async def test_up_and_down_and_up_again_while_the_older_version_works_and_this_one_takes_over(
    stack: Stack, empty_database: str, older: Path, heads: tuple[str, str], tmp_path: Path
) -> None:
    old, new = heads
    async with open_site(stack, empty_database, tmp_path) as site:
        await asyncio.to_thread(run_there, older, site.environ, "migrate")
        made = await asyncio.to_thread(run_there, older, site.environ, "keys", "create", "--tenant", "academy")
        found = re.search(r"cb_live_\w+", made)
        assert found is not None, made
        site.caller = Caller(site.fleet.api.url, found[0])
        site.fleet.api.root = older
        await site.fleet.start_api()
        first = Worker("w1", tmp_path, site.environ)
        first.root = older
        site.fleet.workers.append(first)
        await by_hand(first.start)
        engine = create_engine(Settings.from_env(site.environ), statement_timeout=60.0, role=None)
        try:
            async with under_load(site):
                await migrate.upgrade(engine)
                assert await migrate.current(engine) == new
                await migrate.downgrade(engine, old)
                assert await migrate.current(engine) == old
                await migrate.upgrade(engine)
        finally:
            await engine.dispose()
        print(dict(site.caller.answers))
        await rest(site)
        async with under_load(site):  # the older API, a worker of each version
            await site.fleet.start_worker()
            await asyncio.sleep(1)
        async with under_load(site):  # this API, and still a worker of each version
            await by_hand(site.fleet.api.stop)
            site.fleet.api.root = ROOT
            await by_hand(site.fleet.api.start)
            await asyncio.sleep(1)
        # more than a deploy needs, where workers come first (an older worker would send this API's mails without files)
        async with under_load(site):  # this API, the older worker alone
            await by_hand(site.fleet.workers[1].stop)
            await asyncio.sleep(1)
        await rest(site)
        await set_aside(site)
        assert set(site.caller.answers) <= {"202", "503", "409", *TORN}, site.caller.answers
        await judge(site)


TORN = {"ConnectError", "ReadError", "RemoteProtocolError", "WriteError"}
"""What a caller sees of an API that is replaced."""
