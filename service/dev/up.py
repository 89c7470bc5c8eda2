"""`callboard up`: everything on this machine, until Ctrl-C; what is kept, is kept in one directory."""

import asyncio
import contextlib
import importlib
import json
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from callboard_workers.redis import address
from service.dev import ports
from service.dev.binaries import MissingServer
from service.dev.child import Child, Hopeless
from service.dev.demo import Keys, connect, console_pass, demo_keys
from service.dev.facts import Facts
from service.dev.identity import identity
from service.dev.plan import LOOPBACK, External, celery, child_environment, ours, secret_of
from service.dev.postgres import Postgres
from service.dev.preflight import CannotStart, check_loopback, check_redis, check_settings, use_folder
from service.dev.schema import Schema
from service.dev.server import Server, ServerFailed, environment
from service.dev.stack import DataInUse, Lock, Ports
from service.dev.terminal import Terminal, has_colour, worth_reading_postgres, worth_reading_valkey
from service.dev.valkey import Valkey
from service.environment import translate
from service.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.dev.mailbox.mail import Summary
    from service.dev.mailbox.mailbox import Mailbox

START_TIMEOUT = 180.0  # seconds, of which every fifteen say what is waited for
ASK_SECONDS = 0.1  # between two looks whether a worker reports
STOP_TIMEOUT = 2.0  # seconds for api, worker and beat together
FENCED = "SELECT count(*) FROM messages WHERE state = 'running' AND intent AND lease_until > clock_timestamp()"
SERVER_STOP_TIMEOUT = 0.8  # seconds more for PostgreSQL and Valkey
TWICE = 0.3  # seconds within which a second signal is the echo of the first: a wrapper forwards Ctrl-C
PROGRAM = "CALLBOARD_PROGRAM"  # how a person started us, for the commands we print


def run(port: int = 8000, data: Path = Path(".callboard"), workers: int = 1) -> int:
    """Runs until it is told to stop. Returns the exit code; whatever goes wrong is one line, never a traceback."""
    folder = Path(data).absolute()
    try:
        return asyncio.run(Up(port, folder, workers).run())
    except (CannotStart, DataInUse, MissingServer, ServerFailed, Hopeless) as error:
        print(f"callboard up: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:  # before there was anything to stop
        return 130
    except Exception as error:
        print(f"callboard up: {unexpected(folder, error)}", file=sys.stderr)  # noqa: T201
        return 1


def unexpected(folder: Path, error: Exception) -> str:
    """An error that nobody foresaw, in one line; its traceback is kept in a file."""
    said = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0][:300]
    file = folder / "crash.log"
    try:
        file.write_text("".join(traceback.format_exception(error)))
    except OSError:
        return said
    return f"{said}. Please report it with {file}"


class Up:
    """One run of `callboard up`."""

    def __init__(self, port: int, data: Path, workers: int) -> None:
        self.port = port
        self.data = data
        self.workers = workers
        self.started = time.monotonic()
        self.environ = translate(os.environ)[0]
        self.external = External.of(self.environ)
        self.redis: Redis | None = None
        self.lock = Lock(data)
        self.children: list[Child] = []
        self.servers: list[Child] = []
        self.mailbox: Mailbox | None = None
        self.stopped = asyncio.Event()
        self.signalled = 0.0
        self.waiting = 0

    async def run(self) -> int:
        """Starts everything, waits for a signal, stops everything."""
        self._take_data()
        self.settings = self._check_settings()
        self._check_port()
        check_loopback()
        await check_redis(self.environ)
        self.terminal = Terminal(sys.stdout, ["postgres", "mailbox", *self._worker_names()], has_colour(sys.stdout))
        self._listen_to_signals()
        self.terminal.say("starting everything, which takes some seconds")
        try:
            await self._start_unless_stopped()
            await self.stopped.wait()
        finally:
            await self._stop()
            self.terminal.close()
            self.lock.release()
        return 0

    # start

    def _check_settings(self) -> Settings:
        """Before anything runs; the addresses of servers that are not there yet are no part of it."""
        return check_settings(
            self._environment("postgresql://127.0.0.1/callboard", "redis://127.0.0.1", None), self.workers
        )

    def _environment(self, database_url: str, redis_url: str, smtp_port: int | None) -> dict[str, str]:
        return child_environment(
            self.environ,
            api_port=self.port,
            database_url=database_url,
            redis_url=redis_url,
            smtp_port=smtp_port,
            secret=secret_of(self.data / "secret"),
            data=self.data,
        )

    def _check_port(self) -> None:
        if ports.is_free(self.port, LOOPBACK):
            return
        other = shlex.join(self._arguments(ports.next_free_port(self.port)))
        raise CannotStart(f"port {self.port} is taken by {ports.holder(self.port)}.\nUse another one: {other}")

    def _arguments(self, port: int) -> list[str]:
        words = [*os.environ.get(PROGRAM, "callboard").split(), "up", "--port", str(port)]
        if self.data != Path(".callboard").absolute():
            words += ["--data", os.path.relpath(self.data)]
        return words + (["--workers", str(self.workers)] if self.workers != 1 else [])

    def _take_data(self) -> None:
        use_folder(self.data)
        try:
            self.lock.acquire()
        except DataInUse as error:
            raise CannotStart(self._who_runs(error)) from None
        # passwords, keys and mails; PostgreSQL may have to walk through it
        self.data.chmod(0o711 if identity() == "nobody" else 0o700)
        self.ports = Ports(self.data)
        (self.data / "up.json").unlink(missing_ok=True)  # of a run that was killed: the file says that all is there

    def _who_runs(self, error: DataInUse) -> str:
        try:
            there = f"Callboard runs there already, at {json.loads((self.data / 'up.json').read_text())['api']}."
        except (OSError, ValueError, KeyError):
            there = "Is `callboard up` starting or stopping there?"
        return f"{error}.\n{there} Stop that one, or choose another folder with --data and another --port"

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        now = time.monotonic()
        if not self.signalled:
            self.signalled = now
            self.terminal.say("stopping; once more to kill")
            self.stopped.set()
        elif now - self.signalled > TWICE:
            self.terminal.say("killing")
            for child in [*self.children, *self.servers]:
                child.kill()

    async def _start_unless_stopped(self) -> None:
        starting, stopped = asyncio.create_task(self._start()), asyncio.create_task(self.stopped.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if starting.done():
            return await starting
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return None

    async def _start(self) -> None:
        database, redis = self._start_servers()
        mail_ports = None if self.external.smtp else (self.ports.take("smtp"), self.ports.take("mailbox"))
        loading = asyncio.to_thread(importlib.import_module, "service.health.heartbeats")
        await asyncio.gather(loading, *(server.until_ready(START_TIMEOUT) for server in self.servers))
        env = self._environment(database(), redis, mail_ports[0] if mail_ports else None)
        self.redis = address.async_client(redis, socket_timeout=2, socket_connect_timeout=2)
        await self._migrate(env)
        keys = await demo_keys(self.data / "demo.json", env["DATABASE_URL"])
        self._start_ours(env)
        if mail_ports:
            await self._start_mailbox(*mail_ports)
        self.ports.save()
        await asyncio.gather(*(child.until_ready(START_TIMEOUT) for child in self.children))
        self._start_beat(env)
        entry = await console_pass(keys, env["DATABASE_URL"], env["SECRET_KEY"])
        facts = self._facts(env, keys, entry)
        facts.write(self.data)
        self._greet(facts)

    def _start_servers(self) -> tuple[Callable[[], str], str]:
        """Returns how to get the database's URL, which is known once the server is there, and Redis'."""
        database, redis = self.external.database_url, self.external.redis_url
        if redis is None:
            valkey = Valkey(self.data / "valkey", port=self.ports.take("valkey"))
            self.servers.append(self._server(valkey, worth_reading_valkey))
            redis = valkey.url
        if database is not None:
            return lambda: database, redis
        postgres = Postgres(self.data / "postgres", port=self.ports.take("postgres"))
        if not (self.data / "postgres").exists():
            self.terminal.say("making the database, which only the first run has to")
        self.servers.append(self._server(postgres, worth_reading_postgres))
        return postgres.service_url, redis

    def _server(self, server: Server, worth_reading: Callable[[str], bool]) -> Child:
        async def ready(pid: int) -> bool:
            return server.is_ready(pid)

        async def prepare() -> None:
            await asyncio.to_thread(server.prepare)

        def write(line: str) -> None:
            if worth_reading(line):
                self.terminal.log(server.name, line)

        child = Child(
            name=server.name,
            command=server.command,
            environment=environment(LC_ALL="C"),
            write=write,
            say=self.terminal.say,
            ready=ready,
            prepare=prepare,
            stop_signal=server.stop_signal,
        )
        child.start()
        return child

    async def _migrate(self, env: dict[str, str]) -> None:
        schema = Schema(self.data / "schema.json")
        if not await schema.is_newest(env["DATABASE_URL"]):
            self.terminal.say("bringing the database to the newest schema")
            for line in (await schema.migrate(env)).splitlines():
                self.terminal.log("up", line)

    def _start_ours(self, env: dict[str, str]) -> None:
        # when `up` is killed, the API must still end its processes, and a worker that dies loses nothing
        self._child("api", ours("api", stop_signal=signal.SIGTERM), env, self._api_answers)
        port = self.settings.worker_health_port
        for number, name in enumerate(self._worker_names()):
            # mingle waits a second for the neighbours' revoked tasks, which the ledger knows better
            command = celery("worker", "--hostname", f"{name}@%h", "--without-mingle", stop_signal=signal.SIGKILL)
            health = {"WORKER_HEALTH_PORT": str(port + number)} if port else {}
            self._child(name, command, env | health, partial(self._worker_reports, name))

    def _start_beat(self, env: dict[str, str]) -> None:
        """Once the others are there: nothing waits for it, and loading it would slow them down."""
        schedule = str(self.data / "beat-schedule")
        self._child("beat", celery("beat", "--schedule", schedule, "--pidfile", "", stop_signal=signal.SIGKILL), env)

    def _worker_names(self) -> list[str]:
        return ["worker"] if self.workers == 1 else [f"worker-{number}" for number in range(1, self.workers + 1)]

    def _child(
        self, name: str, command: list[str], env: dict[str, str], ready: Callable[[int], Awaitable[bool]] | None = None
    ) -> None:
        child = Child(
            name=name,
            command=lambda: command,
            environment=env,
            write=partial(self.terminal.log, name),
            say=self.terminal.say,
            ready=ready,
        )
        self.children.append(child)
        child.start()

    async def _api_answers(self, pid: int) -> bool:
        """Whether it can accept work: a plain request, because a client library takes longer to load than to answer."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def _worker_reports(self, name: str, pid: int) -> bool:
        """Whether the worker has reported to Redis which queues it serves: it takes work then, whatever it logs."""
        from service.health.heartbeats import list_workers  # noqa: PLC0415 - loaded while the servers start

        try:
            found = await list_workers(self.redis, self.settings.redis_key_prefix) if self.redis else []
        except Exception:  # Redis is starting, or away: asked again
            found = []
        if any(each.pid == str(pid) and each.node.startswith(f"{name}@") and each.queues for each in found):
            return True
        await asyncio.sleep(ASK_SECONDS)
        return False

    async def _start_mailbox(self, smtp_port: int, http_port: int) -> None:
        from service.dev.mailbox.mailbox import Mailbox  # noqa: PLC0415 - loads while the children do

        self.mailbox = Mailbox(
            self.data / "mailbox.sqlite3",
            smtp_port=smtp_port,
            http_port=http_port,
            announce=partial(self._announce, http_port),
        )
        await self.mailbox.start()

    def _announce(self, http_port: int, mail: "Summary") -> None:
        url = f"http://{LOOPBACK}:{http_port}/#{mail.id}"
        event = {"event": "mail_received", "subject": mail.subject, "url": url}
        self.terminal.log("mailbox", json.dumps(event))

    # what a person needs

    def _facts(self, env: dict[str, str], keys: Keys, entry: str) -> Facts:
        api = f"http://{LOOPBACK}:{self.port}"
        return Facts(
            api=api,
            console=f"{api}/console/enter?pass={entry}",
            mailbox=self.mailbox.url if self.mailbox else None,
            smtp=f"{env['SMTP_HOST']}:{env.get('SMTP_PORT') or 25}",
            key=keys.live,
            test_key=keys.test,
            database_url=env["DATABASE_URL"],
            redis_url=env["REDIS_URL"],
            pid=os.getpid(),
        )

    def _greet(self, facts: Facts) -> None:
        table = "\n".join(f"  {name:<9} {self.terminal.paint(value, 1)}" for name, value in facts.rows().items())
        self.terminal.say(f"ready after {time.monotonic() - self.started:.1f} s; Ctrl-C stops everything")
        self.terminal.block(f"\n{table}\n\n  Send a mail:\n\n{facts.curl()}\n ")

    # stop

    async def _stop(self) -> None:
        """The API first, so that nothing new comes in; the servers last."""
        begun = time.monotonic()
        workers = self._worker_names()
        await asyncio.gather(
            *(
                child.stop(STOP_TIMEOUT, self._awaits_replies if child.name in workers else None)
                for child in self.children
            )
        )
        if self.mailbox is not None:
            await self.mailbox.stop()
        if self.redis is not None:
            await self.redis.aclose()
        await asyncio.gather(*(server.stop(SERVER_STOP_TIMEOUT) for server in reversed(self.servers)))
        (self.data / "up.json").unlink(missing_ok=True)
        self.terminal.say(f"stopped after {time.monotonic() - begun:.1f} s")

    async def _awaits_replies(self) -> bool:
        """Whether a mail server has yet to reply to a final dot: killed now, the outcome of that email is unknown."""
        url = next((child.environment.get("DATABASE_URL") for child in self.children), None)
        timeout = self.settings.worker_fenced_timeout
        if url is None or time.monotonic() - self.signalled > timeout:
            return False
        try:
            connection = await connect(url, timeout=1)
            try:
                waiting: int = await connection.fetchval(FENCED, timeout=1)
            finally:
                await connection.close(timeout=1)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        if waiting and not self.waiting:
            self.terminal.say(f"{waiting} emails wait for the mail server's final reply; Ctrl-C again gives them up")
        self.waiting = waiting
        return waiting > 0


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
