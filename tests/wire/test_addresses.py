"""Redis behind sentinels, behind TLS, under a prefix: publisher, worker and stock clients find it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from celery import Celery

from callboard_workers.celery import create_celery
from callboard_workers.common.loop_thread import LoopThread
from callboard_workers.message import Message
from callboard_workers.redis.address import Sentinels
from callboard_workers.redis.publisher import Publisher
from service.dev.server import launched
from service.dev.stack import Stack
from service.dev.valkey import Valkey
from tests.wire.process import Worker, client, eventually, inspect


class Watcher(Valkey):
    """A sentinel: the same program with another job."""

    def __init__(self, data: Path, master: Valkey) -> None:
        super().__init__(data)
        self.master = master

    def prepare(self) -> None:
        super().prepare()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.data}",
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1",
            "sentinel down-after-milliseconds mymaster 1000",
            "sentinel failover-timeout mymaster 2000",
        ]
        (self.data / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        command = [str(self.program), str(self.data / "sentinel.conf"), "--sentinel"]
        return launched(command, stop_signal=self.stop_signal)

    def is_ready(self, pid: int) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as asked:
                return bool(asked.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[tuple[Valkey, Valkey, Watcher]]:
    """A master, its replica, and the sentinel that watches over them."""
    with ExitStack() as stack:
        first, second = Valkey(tmp_path / "a"), Valkey(tmp_path / "b")
        for server in (first, second):
            server.start()
            stack.callback(server.kill)
        with redis.Redis(port=second.port) as replica:
            replica.replicaof("127.0.0.1", first.port)
            eventually(lambda: replica.info("replication")["master_link_status"] == "up", "it follows")
        watcher = Watcher(tmp_path / "s", first)
        watcher.start()
        stack.callback(watcher.kill)
        with redis.Redis(port=watcher.port, decode_responses=True) as asked:
            eventually(lambda: asked.execute_command("SENTINEL", "REPLICAS", "mymaster"), "it knows the replica")
        yield first, second, watcher


def publish(url: str, *tags: str, seconds: float = 0.0) -> None:
    async def go() -> None:
        publisher = Publisher(url)
        await publisher.start()
        try:
            await publisher.publish([Message(actor="demo.work", args=(tag, seconds)) for tag in tags])
        finally:
            await publisher.stop()

    asyncio.run(go())


def published(url: str, *tags: str) -> bool:
    try:
        publish(url, *tags)
    except Exception:
        return False
    return True


def told(server: Valkey) -> int:
    """How far a master's or a replica's story goes."""
    with redis.Redis(port=server.port) as asked:
        return int(asked.info("replication")["master_repl_offset"])


def stock_behind(url: str) -> Celery:
    found = Sentinels.of(url)
    app = client(found.celery_url)
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **found.celery_options}
    return app


def test_a_failover_is_followed_and_runs_nothing_twice(trio: tuple[Valkey, Valkey, Watcher], tmp_path: Path) -> None:
    first, second, watcher = trio
    url = f"sentinel://127.0.0.1:{watcher.port}/0?master_name=mymaster"
    with Worker(url, tmp_path, options={"own_consumer": True, "lease": 60.0}) as worker:
        publish(url, "before")
        worker.wait_for("end before")
        assert inspect(stock_behind(url), worker).ping()
        publish(url, *(f"t{n}" for n in range(5)), seconds=5.0)
        worker.wait_for(*(f"start t{n}" for n in range(5)))
        eventually(lambda: told(first) == told(second), "the replica has heard all")
        first.kill()
        eventually(lambda: redis.Redis(port=second.port).info("replication")["role"] == "master", "a new master")
        eventually(lambda: published(url, "after"), "the publisher has found it")
        worker.wait_for("end after", *(f"end t{n}" for n in range(5)), timeout=60)
        assert [worker.notes()[f"start t{n}"] for n in range(5)] == [1] * 5
        eventually(lambda: not redis.Redis(port=second.port).keys("workers:unacked:*"), "all is settled")
        assert worker.alive


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sentinel://h:1/0", "must name its master"),
        ("sentinel:///0?master_name=m", "must name a sentinel"),
        ("sentinel://h:1/x?master_name=m", "number of a database"),
    ],
)
def test_an_address_that_lacks_something_says_what(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sentinels.of(url)


def test_an_address_of_many_sentinels_is_read_and_written_for_celery() -> None:
    found = Sentinels.of("sentinel://u:p%40ss@a:1;b;sentinel://c:3/4?master_name=m&sentinel_password=s&ssl=true")
    assert found.hosts == (("a", 1), ("b", 26379), ("c", 3))
    assert (found.master, found.db, found.own) == ("m", 4, {"password": "s"})
    assert found.server == {"username": "u", "password": "p@ss", "ssl": True}
    assert create_celery("sentinel://a:1;b:2/3?master_name=m").conf.broker_transport_options["master_name"] == "m"


class Tls:
    """Ends TLS in front of a server that has none, on a thread of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        authority = trustme.CA()
        self.certificate = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.certificate))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.target, self.port = port, 0
        self.thread = LoopThread("tls")

    def __enter__(self) -> Tls:
        self.thread.start()
        self.port = self.thread.run(self._listen(), 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.stop()

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        return int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(pump(reader, outer), pump(inner, writer), return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def test_a_worker_a_publisher_and_a_stock_client_meet_over_tls(stack: Stack, redis_url: str, tmp_path: Path) -> None:
    with Tls(tmp_path, stack.valkey.port) as tls:
        checked = f"ssl_cert_reqs=required&ssl_ca_certs={tls.certificate}"
        url = f"rediss://127.0.0.1:{tls.port}/0?{checked}"
        results = f"rediss://127.0.0.1:{tls.port}/2?{checked}"
        with Worker(url, tmp_path, RESULTS=results) as worker:
            publish(url, "ours")
            stock = client(url, backend=results)
            assert stock.send_task("demo.add", args=[2, 3], queue="default").get(timeout=60) == 5
            worker.wait_for("end ours")
            assert inspect(stock, worker).ping()


def test_a_prefix_is_before_every_key(redis_url: str, tmp_path: Path) -> None:
    prefix: dict[str, Any] = {"global_keyprefix": "mine:"}
    with Worker(redis_url, tmp_path, PREFIX="mine:") as worker, redis.Redis.from_url(redis_url) as server:
        stock = client(redis_url)
        stock.conf.broker_transport_options = {**stock.conf.broker_transport_options, **prefix}
        stock.send_task("demo.work", args=["a", 2.0], queue="default")
        stock.send_task("demo.work", args=["b"], queue="default", countdown=600)
        worker.wait_for("start a")
        eventually(lambda: server.exists("mine:workers:delayed"), "the other waits")
        assert inspect(stock, worker).ping()
        worker.wait_for("end a")
        assert [key for key in server.scan_iter() if not key.startswith(b"mine:")] == []
