"""`streams`: 500 live readers that never read, beside none: memory of the API, and whether a good reader notices."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from contextlib import ExitStack

import asyncpg
import httpx

from bench import machine
from bench.accept import new_key, serving
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers

DEAD, QUICK_DEAD = 500, 50
BACKLOG = 400  # items of 2 kB that wait for each of them
TOLD = 50  # items delivered while they are there
MIB = 1 << 20
FEW = 4_096  # bytes that a dead reader's own machine takes for it
NONE, MANY = "no dead reader", "dead readers"
COLUMNS = (
    Column("memory", "API MiB", ",.0f"),
    Column("grown", "grown by MiB", ",.1f"),
    Column("mark", "told live p50 ms", ",.1f"),
)
ITEMS = """
WITH told AS (
    INSERT INTO notifications (id, tenant_id, mode, type, data, channels, finished_at)
    SELECT uuidv7(), u.tenant_id, 'live', 'bench.told', jsonb_build_object('text', repeat('x', 2000)), '{inbox}', now()
    FROM users u, generate_series(1, $2::int) WHERE u.id = $1 RETURNING id, tenant_id
)
INSERT INTO deliveries (notification_id, user_no, channel, tenant_id)
SELECT t.id, u.no, 'inbox', t.tenant_id FROM told t, users u WHERE u.id = $1
"""


def run(options: Options, servers: Servers) -> list[Report]:
    """With none and with many, in turn, every round."""
    dead = QUICK_DEAD if options.quick else DEAD
    title = f"One granian process, {dead} streams that never read, each {2 * BACKLOG} kB behind"
    report = Report("streams", title, COLUMNS, NONE, "mark")
    for number in range(options.rounds):
        for name, count in ((NONE, 0), (MANY, dead)):
            say(f"streams, round {number + 1}/{options.rounds}: {name}")
            with servers.database() as database:
                headers = {"Authorization": f"Bearer {asyncio.run(new_key(database))}"}
                with serving("", options, servers, database) as (process, port):
                    report.add(name, asyncio.run(measure(database, port, process, headers, count)))
    report.targets = [Target(MANY, "mark", (NONE,), most=2, less_is_better=True, text="a live reader beside them")]
    return [report]


async def measure(
    database: str, port: int, process: subprocess.Popen[bytes], headers: dict[str, str], dead: int
) -> Figures:
    """Open the dead readers, then tell a good one something again and again."""
    connection = await asyncpg.connect(database)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        for user in ("dead", "alive"):
            (await client.put(f"/v1/users/{user}", json={})).raise_for_status()
        await connection.execute(ITEMS, "dead", BACKLOG)
        await client.get("/v1/users/dead/feed")
        pids = machine.tree(process.pid)
        before = machine.memory(pids) / MIB
        with ExitStack() as stack:
            for _ in range(dead):
                stack.enter_context(never_reading(port, "/v1/users/dead/stream", headers["Authorization"]))
            waits = await live(client, connection)
            after = machine.memory(pids) / MIB
    await connection.close()
    return {"memory": after, "grown": after - before, "mark": sorted(waits)[len(waits) // 2] * 1e3}


def never_reading(port: int, path: str, key: str) -> socket.socket:
    """A client that asks for everything and reads nothing of it."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FEW)
    found.connect(("127.0.0.1", port))
    found.sendall(f"GET {path} HTTP/1.1\r\nHost: b\r\nAuthorization: {key}\r\nLast-Event-ID: 0\r\n\r\n".encode())
    return found


async def live(client: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]) -> list[float]:
    """Seconds from a mark to the word of it at a reader of another user, whose line is open."""
    waits: list[float] = []
    await connection.execute(ITEMS, "alive", TOLD)
    async with client.stream("GET", "/v1/users/alive/stream", timeout=60) as answer:
        lines = answer.aiter_lines()
        await until(lines, "event: ready")
        for number in range(1, TOLD + 1):
            began = time.perf_counter()
            told = asyncio.create_task(until(lines, "event: counts"))
            (await client.post("/v1/users/alive/feed/read", json={"up_to": number})).raise_for_status()
            await told
            waits.append(time.perf_counter() - began)
    return waits


async def until(lines: object, wanted: str) -> None:
    """Read on to a line."""
    async for line in lines:  # type: ignore[attr-defined]
        if line == wanted:
            return
    raise RuntimeError(f"the stream ended before {wanted!r}")
