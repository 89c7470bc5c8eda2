"""`python -m bench.pooler PGBOUNCER [--seconds 60]`: the whole service behind PgBouncer in transaction mode, broken.

API and two workers reach Postgres through the PgBouncer at PGBOUNCER (1.21 or newer) only, as callboard_api and
callboard_worker. While tests/load/locustfile.py plays its apps, PgBouncer is killed and started again and again, a
worker is killed, tables get a column each, as a migration gives them, and Postgres is restarted. The verdict: nothing
that was accepted is lost, no reader missed a word, no mail came twice, and Postgres never had more connections than
PgBouncer may open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from bench import running
from bench.progress import hush, say
from bench.servers import Servers, servers
from callboard_workers.ledger.sweeper import sweep
from service.db.engine import address
from service.dev.chaos.fleet import Fleet, by_hand
from service.dev.chaos.sink import Sink
from service.dev.identity import identity
from service.dev.ports import free_port
from service.dev.server import Server, launched

POOL = 8
"""Connections to Postgres for each of the two users: fewer than the processes have to PgBouncer."""
WORKERS = 2
ROLES = ("callboard_api", "callboard_worker")
PASSWORD = "of a trial only"
SETTINGS = """
ALTER ROLE {role} LOGIN PASSWORD '{password}';
ALTER ROLE {role} SET statement_timeout = '{timeout}s';
ALTER ROLE {role} SET idle_in_transaction_session_timeout = '60s';
"""
CONFIGURATION = """
[databases]
{database} = host=127.0.0.1 port={postgres} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 500
max_prepared_statements = 200
server_login_retry = 0.2
"""
GROWN = ("messages", "message_attempts", "emails", "idempotency_keys", "notifications", "deliveries", "jobs")
WAITING = "SELECT count(*) FROM emails WHERE status NOT IN ('sent', 'uncertain')"
BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY($1)"


class PgBouncer(Server):
    """PgBouncer as an operator runs it, on a port of its own."""

    name = "pgbouncer"

    def __init__(self, program: str, folder: Path, database: str) -> None:
        super().__init__(folder / "pgbouncer.log")
        self.program = program
        self.port = free_port()
        self.database = database.rpartition("/")[2]
        users = folder / "users.txt"
        users.write_text("".join(f'"{role}" "{PASSWORD}"\n' for role in ROLES))
        self.configuration = folder / "pgbouncer.ini"
        postgres = database.rpartition(":")[2].partition("/")[0]
        self.configuration.write_text(
            CONFIGURATION.format(database=self.database, postgres=postgres, port=self.port, users=users, pool=POOL)
        )

    def command(self) -> list[str]:
        return launched([self.program, str(self.configuration)], identity=identity())

    def is_ready(self, pid: int) -> bool:
        return bool(self.log.read_text(errors="replace").count("process up") > self.starts)

    def prepare(self) -> None:
        self.starts = self.log.read_text(errors="replace").count("process up") if self.log.exists() else 0

    def url(self, role: str) -> str:
        """Where a process that acts as `role` finds the database."""
        return f"postgresql://{role}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{self.database}"


class House:
    """PgBouncer, the API, the workers, the mail server, and what was seen of them."""

    def __init__(self, stand: Servers, database: str, folder: Path, program: str, sink: Sink) -> None:
        self.stand, self.database, self.sink = stand, database, sink
        self.bouncer = PgBouncer(program, folder, database)
        self.fleet = Fleet(
            folder,
            {
                "REDIS_URL": stand.redis_url,
                "SECRET_KEY": "a secret of a trial only",
                "MAIL_FROM": "Bench <bench@example.org>",
                "SMTP_HOST": sink.host,
                "SMTP_PORT": str(sink.port),
                "SMTP_TLS": "none",
                "WORKER_LEASE": "6",
                "LOG_FORMAT": "json",
                "DB_POOLER": "true",
            },
        )
        self.most = 0

    async def ask(self, statement: str, *arguments: object) -> object:
        """One statement to Postgres itself, as its owner."""
        connection = await asyncpg.connect(self.database, timeout=10)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def open(self) -> None:
        """Roles that may log in, then everything that is started."""
        connection = await asyncpg.connect(self.database)
        for role, timeout in zip(ROLES, (5, 30), strict=True):
            await connection.execute(SETTINGS.format(role=role, password=PASSWORD, timeout=timeout))
        await connection.close()
        await by_hand(self.bouncer.start)
        api, worker = (self.bouncer.url(role) for role in ROLES)
        await self.fleet.start_api(DATABASE_URL=api)
        for _ in range(WORKERS):
            await self.fleet.start_worker(DATABASE_URL=worker)

    async def count(self) -> None:
        """Note the most connections that Postgres has, until cancelled."""
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                found = await self.ask(BACKENDS, list(ROLES))
                self.most = max(self.most, int(str(found)))
            await asyncio.sleep(0.5)

    async def hasten(self) -> None:
        """Have what a killed worker had handed over be in doubt in seconds, not minutes, until cancelled."""
        engine = create_async_engine(address(self.database)[0])
        try:
            while True:
                with suppress(SQLAlchemyError, OSError):
                    await sweep(engine, lambda _: None, doubt=1.0)
                await asyncio.sleep(1)
        finally:
            await engine.dispose()

    async def rest(self) -> None:
        """Wait until no mail is on its way, a minute at most."""
        for _ in range(60):
            if not await self.ask(WAITING):
                return
            await asyncio.sleep(1)

    async def states(self) -> dict[str, int]:
        """How many mails there are of each status."""
        found = await self.ask(
            "SELECT json_object_agg(status, n) FROM (SELECT status, count(*) n FROM emails GROUP BY 1)"
        )
        return dict(json.loads(str(found)))

    async def bouncer_killed(self) -> None:
        await by_hand(self.bouncer.kill)
        await asyncio.sleep(random.uniform(0, 1.5))
        await by_hand(self.bouncer.start)

    async def worker_killed(self) -> None:
        worker = random.choice(self.fleet.workers)
        await by_hand(worker.kill)
        await by_hand(worker.start)

    async def tables_grown(self) -> None:
        """What an expanding migration does, to every table that the traffic goes through."""
        for table in GROWN:
            await self.ask(f"ALTER TABLE {table} ADD COLUMN grown_{random.randrange(1 << 30)} integer")

    async def postgres_restarted(self) -> None:
        await by_hand(self.stand.stack.postgres.stop)
        await by_hand(self.stand.stack.postgres.start)

    async def close(self) -> None:
        await self.fleet.close()
        await by_hand(self.bouncer.stop)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pooler", description=__doc__)
    parser.add_argument("pgbouncer", help="the program, 1.21 or newer")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--users", type=int, default=20)
    return parser.parse_args()


def main() -> int:
    """Run and judge; 1 when the promise was not kept."""
    asked = arguments()
    with servers() as stand, running.folder() as folder, stand.database() as database:
        folder.path.chmod(0o755)
        return asyncio.run(trial(stand, database, folder.path, asked))


async def trial(stand: Servers, database: str, folder: Path, asked: argparse.Namespace) -> int:
    """Load, faults, verdict."""
    async with opened(stand, database, folder, asked.pgbouncer) as house:
        counting = asyncio.create_task(house.count())
        load = await _load(house, asked)
        faults: list[Callable[[], Awaitable[None]]] = [
            *(house.bouncer_killed, house.tables_grown, house.bouncer_killed, house.worker_killed),
            *(house.bouncer_killed, house.postgres_restarted, house.bouncer_killed),
        ]
        for fault in faults:
            await asyncio.sleep(asked.seconds / (len(faults) + 1))
            say(fault.__name__.replace("_", " "))
            await fault()
        sweeping = asyncio.create_task(house.hasten())
        kept = await load.wait() == 0
        await house.rest()
        for task in (counting, sweeping):
            task.cancel()
        states = await house.states()
        received = house.sink.received()
        twice = sum(many > 1 for many in received.values())
        sent, doubtful = states.get("sent", 0), states.get("uncertain", 0)
        whole = set(states) <= {"sent", "uncertain"} and sent <= len(received) <= sent + doubtful
        hush()
        print(f"{'✓' if kept else '✗'} everything accepted is settled, every reader was told")
        print(f"{'✓' if whole else '✗'} mails by their status: {states}; received: {len(received):,}")
        print(f"{'✗' if twice else '✓'} {twice} mails came twice")
        bounded = 0 < house.most <= 2 * POOL
        print(f"{'✓' if bounded else '✗'} at most {house.most} connections to Postgres, {2 * POOL} are allowed")
        if not (kept and whole and bounded and not twice):
            for member in house.fleet.members:
                print(f"--- {member.name}\n{member.last_lines(40)}", file=sys.stderr)
            return 1
        return 0


async def _load(house: House, asked: argparse.Namespace) -> asyncio.subprocess.Process:
    key = await _key(house.database, house.fleet.environ)
    command = ["-m", "locust", "-f", "tests/load/locustfile.py", "--headless", "--only-summary", "-r", "20"]
    command += ["-u", str(asked.users), "-t", f"{asked.seconds}s", "--host", house.fleet.api.url]
    # a refusal while the way to Postgres is broken is no fault: what was accepted counts
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--exit-code-on-error",
        "0",
        cwd=running.ROOT,
        env={**os.environ, "CALLBOARD_KEY": key},
    )


async def _key(database: str, environ: dict[str, str]) -> str:
    command = [sys.executable, "-m", "service", "keys", "create", "--tenant", "academy"]
    environment = {**os.environ, **environ, "DATABASE_URL": database, "DB_POOLER": "false"}
    made = await asyncio.to_thread(
        subprocess.run, command, cwd=running.ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return next(word for word in made.stdout.split() if word.startswith("cb_live_"))


@asynccontextmanager
async def opened(stand: Servers, database: str, folder: Path, program: str) -> AsyncIterator[House]:
    """A house that is running; everything it started is ended with it."""
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(Sink())
        house = House(stand, database, folder, program, sink)
        stack.push_async_callback(house.close)
        await house.open()
        yield house


if __name__ == "__main__":
    raise SystemExit(main())
