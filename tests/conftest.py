"""Real servers for every test: one PostgreSQL and one Valkey per run, a fresh database and mailbox per test."""

import asyncio
import email
import email.policy
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import NoReturn

import hypothesis
import pytest
import redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import service.db.migrate
from service.db.engine import create_engine
from service.dev.databases import Databases
from service.dev.mailbox.sink import Received, Sink
from service.dev.stack import Stack, throwaway_stack
from service.settings import Settings

os.environ["ENV_FILE"] = ""  # a developer's .env decides no test
pytest_plugins = ["callboard_workers.testing.plugin"]

POSTGRES = os.environ.get("TEST_POSTGRES_URL")
"""Another server for the databases of tests, as its superuser: postgresql://user:password@host:port/postgres."""
OWN = f"_{os.getpid()}" if POSTGRES else ""  # that server may serve several runs
TEMPLATE = f"template_migrated{OWN}"

# A busy machine is slow at everything, at making examples too.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")
numbers = itertools.count(1)


def lacking(what: str) -> NoReturn:
    """Give a test up for want of a right or a program that not every machine has; in CI, where it must run, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"CI has to run this test: {what}")
    pytest.skip(what)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """PostgreSQL and Valkey on free ports, started once; kill, pause and restart them as you like."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it makes every child import slowly
    with throwaway_stack() as running:
        yield running


@pytest.fixture(scope="session")
def databases(stack: Stack) -> Iterator[Databases]:
    """Makes and drops databases on the stack."""
    found = Databases(place(stack, "postgres"))
    yield found
    if POSTGRES:
        found.drop(TEMPLATE)
    found.close()


def place(stack: Stack, name: str) -> str:
    """The URL of a database of the tests."""
    if POSTGRES is None:
        return stack.postgres.url(name)
    return make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def template(stack: Stack, databases: Databases) -> str:
    """The name of a migrated, empty database to copy."""
    databases.create(TEMPLATE)
    migrate(place(stack, TEMPLATE))
    return TEMPLATE


def migrate(url: str) -> None:
    """Brings a database to the newest schema."""

    async def upgrade() -> None:
        engine = create_engine(Settings.from_env({"DATABASE_URL": url}), role=None)
        await service.db.migrate.upgrade(engine)
        await engine.dispose()

    with ThreadPoolExecutor(1) as other:  # a loop may run in this thread
        other.submit(asyncio.run, upgrade()).result()


def fresh(stack: Stack, databases: Databases, template: str) -> Iterator[str]:
    name = f"test_{next(numbers)}{OWN}"
    databases.create(name, template)
    yield place(stack, name)
    databases.drop(name)


@pytest.fixture
def database(stack: Stack, databases: Databases, template: str) -> Iterator[str]:
    """The URL of a database with every table and no row."""
    yield from fresh(stack, databases, template)


@pytest.fixture
def empty_database(stack: Stack, databases: Databases) -> Iterator[str]:
    """The URL of a database without any table."""
    yield from fresh(stack, databases, "template1")


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    """An engine on ``database``, of the test's loop."""
    made = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    yield made
    await made.dispose()


@pytest.fixture
def redis_url(stack: Stack) -> str:
    """The URL of a Valkey without any key."""
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    return stack.redis_url


class Mailbox:
    """An SMTP server on a thread of its own; ``mails`` are those it took, oldest first."""

    def __init__(self) -> None:
        self.mails: list[Received] = []
        self.loop = asyncio.new_event_loop()
        self.sink = Sink(self._take)
        self.thread = threading.Thread(target=self.loop.run_forever, name="mailbox", daemon=True)

    host = "127.0.0.1"

    @property
    def port(self) -> int:
        return self.sink.port

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails, parsed."""
        return [email.message_from_bytes(mail.raw, policy=email.policy.default) for mail in self.mails]

    async def _take(self, mail: Received) -> str:
        self.mails.append(mail)
        return f"test-{len(self.mails)}"

    async def wait(self, count: int, timeout: float = 60.0) -> list[Received]:
        """Waits until ``count`` mails are there. Raises AssertionError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while len(self.mails) < count:
            assert time.monotonic() < deadline, f"{len(self.mails)} of {count} mails after {timeout} s"
            await asyncio.sleep(0.01)
        return self.mails

    def start(self) -> None:
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.sink.start(), self.loop).result(60)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.sink.stop(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mailbox of this test alone: ``mailbox.host``, ``mailbox.port``, ``mailbox.mails``, ``await mailbox.wait(1)``"""
    box = Mailbox()
    box.start()
    yield box
    box.stop()
