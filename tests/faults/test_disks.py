"""Disks that are full, under Postgres, under Valkey, and under the logs: work that was accepted waits, and goes on.

The disks are small file systems in memory, so these tests run where this process may mount one.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
import redis

from service.dev.chaos.fleet import Api, Member, Worker, by_hand
from service.dev.chaos.run import migrated
from service.dev.chaos.site import Site, open_site
from service.dev.ports import free_port
from service.dev.stack import Stack
from tests.conftest import lacking
from tests.faults.judging import eventually, hand_in, judge, sent

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZES = {"postgres": "256m", "valkey": "16m"}
BALLAST = "ballast"


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[None]:
    """A file system of its own on a folder."""
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        lacking(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Takes what is left of a file system, to the last byte."""
    ballast = place / BALLAST
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL and Valkey, each on a small file system of its own."""
    data = tmp_path_factory.mktemp("cramped")
    with mounted(data, SIZES["postgres"]), mounted(data / "valkey", SIZES["valkey"]):
        data.chmod(0o711)
        stack = Stack(data, throwaway=True)
        try:
            yield stack
        finally:
            stack.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(cramped: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    await by_hand(cramped.start)
    await migrated(cramped.postgres.url())
    async with open_site(cramped, cramped.postgres.url(), tmp_path_factory.mktemp("site")) as site:
        await site.open(1)
        yield site


async def test_where_postgres_has_no_room_it_is_503_until_there_is_some(site: Site) -> None:
    await sent(site, await hand_in(site, 10))
    ballast = fill(site.stack.data)
    try:
        with pytest.raises((asyncpg.DiskFullError, asyncpg.PostgresConnectionError, OSError)):
            await site.books.fetch("CREATE TABLE too_much AS SELECT repeat('x', 1000) FROM generate_series(1, 300000)")
        jobs = asyncio.create_task(hand_in(site, 60))
        await eventually(lambda: site.caller.answers["503"] > 0, "it is refused")
        await until_reported(site, "postgres-full", "postgres")
    finally:
        ballast.unlink()
    if site.stack.postgres.process is None or site.stack.postgres.process.poll() is not None:
        await by_hand(site.stack.postgres.start)  # it gave up; whoever runs it starts it again
    await sent(site, await jobs)
    await judge(site)


async def until_reported(site: Site, *names: str) -> None:
    """Wait until `/health/ready` has one of these findings; `status`, `doctor` and the console share them.

    The findings of the last check stay for ten times as long as it took, and on a full disk it is slow.
    """
    async with httpx.AsyncClient(timeout=30) as client:

        async def reported() -> bool:
            found = (await client.get(f"{site.fleet.api.url}/health/ready")).json()
            return not {finding["name"] for finding in found["findings"]}.isdisjoint(names)

        await site.until(reported, f"the checks report {' or '.join(names)}")


async def test_where_valkey_cannot_write_its_file_mail_is_accepted_and_goes_out_when_it_can(site: Site) -> None:
    ballast = fill(site.stack.valkey.data)
    try:
        with redis.Redis.from_url(site.stack.redis_url) as server:

            def refused() -> bool:
                try:
                    server.set("filler", bytes(100_000))
                except redis.ResponseError as error:
                    return "MISCONF" in str(error)
                return False

            await eventually(refused, "it cannot write its file")
            ids = await hand_in(site, 20)
            await until_reported(site, "redis-disk")
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                server.set("filler", "")
    finally:
        ballast.unlink()
    with redis.Redis.from_url(site.stack.redis_url) as server:
        await eventually(lambda: bool(server.delete("filler")) or True, "it writes again")
    await site.books.make_due()
    await sent(site, ids)
    await judge(site)


class Talkers:
    """What starts a process whose output goes where nobody can take it."""

    def __init__(self, output: int) -> None:
        self.output = output

    def mute(self, member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its next start writes to this output."""
        popen = type(member)._popen
        monkeypatch.setattr(member, "_popen", lambda _: popen(member, os.fdopen(os.dup(self.output), "wb", 0)))
        if isinstance(member, Worker):
            member.environ["WORKER_HEALTH_PORT"] = str(port := free_port())
            monkeypatch.setattr(member, "is_ready", lambda _: _answers(port))


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


@pytest.fixture(params=["disk full", "pipe closed"])
def talkers(request: pytest.FixtureRequest) -> Iterator[Talkers]:
    """Output to a device without room, or to a pipe that nobody reads any more."""
    if request.param == "disk full":
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        unread, output = os.pipe()
        os.close(unread)
    yield Talkers(output)
    os.close(output)


async def test_where_logs_cannot_be_written_mail_goes_out(
    site: Site, talkers: Talkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    members: list[Member] = [site.fleet.api, *site.fleet.workers]
    with monkeypatch.context() as patched:
        for member in members:
            await by_hand(member.kill)
            talkers.mute(member, patched)
            await by_hand(member.start)
        assert isinstance(site.fleet.api, Api)
        await sent(site, await hand_in(site, 20))
        assert all(member.alive for member in members)
        await judge(site)
    for member in members:
        await by_hand(member.kill)
        await by_hand(member.start)
