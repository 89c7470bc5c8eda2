"""`callboard api` as people run it: a granian process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.api_server import refusal
from service.settings import Settings
from tests.service.conftest import PATIENT, MakeKey


class Server:
    """A running `callboard api`; `lines` are what it logged."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        began = time.monotonic()
        self.process.send_signal(how)
        return self.process.wait(60), time.monotonic() - began


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONDONTWRITE")}
    environ |= {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "SECRET_KEY": settings.secret_key,
        "BODY_LIMIT": "1000000",
        **PATIENT,
    }
    log = tmp_path / "api.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "service", "api", "--port", str(port)]
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)
    made = Server(process, port, log)
    try:
        wait_for(made)
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def wait_for(server: Server) -> None:
    """Wait until it answers; fails with its log."""
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/health/live", timeout=5).status_code == 200:
                return
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


async def test_it_serves_logs_json_and_stops_soon(server: Server, make_key: MakeKey) -> None:
    key = await make_key()
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        ready = await client.get("/health/ready")
        assert ready.json()["status"] == "ready"
        missing = await client.get("/v1/requests/none", headers={"X-Request-ID": "mine"})
        assert (missing.status_code, missing.headers["x-request-id"]) == (404, "mine")
        refused = await client.get(f"/v1/requests/none?api_key={key}")
        assert refused.status_code == 401
        code, took = server.stop()  # with a kept-alive connection open
    assert code == 0
    assert took < 30  # 3 s that granian gives its worker, and the interpreters' ends on a busy machine
    lines = server.lines
    assert {line["component"] for line in lines} == {"api"}
    assert [line for line in lines if line["event"] == "api_listening"]
    assert [line for line in lines if line["event"] == "api_stopping"]
    done = next(line for line in lines if line.get("request_id") == "mine")
    assert (done["event"], done["status"], done["route"]) == ("request_done", 404, "/v1/requests/{request_id}")
    assert key not in server.log.read_text()


async def test_a_body_over_the_limit_is_refused_before_it_has_all_arrived(server: Server, make_key: MakeKey) -> None:
    head = (
        "POST /v1/emails HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {await make_key()}\r\n\r\n"
    )
    sent, status = await _offer(server.port, head.encode())
    assert b" 413 " in status
    assert sent < 300 * 65536  # what the buffers of two sockets hold, of the thousand offered


async def _offer(port: int, head: bytes) -> tuple[int, bytes]:
    """Offer a body of a thousand chunks until it is answered or hung up on: the bytes taken, and the status line.

    A plain socket: asyncio's streams throw an answer away that waits to be read when a write fails.
    """
    loop = asyncio.get_running_loop()
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, head)
        answer = asyncio.create_task(loop.sock_recv(client, 1024))
        with contextlib.suppress(ConnectionError, TimeoutError):
            while not answer.done() and sent < 1000 * 65536:
                await asyncio.wait_for(loop.sock_sendall(client, chunk), 60)
                sent += 65536
                await asyncio.sleep(0)
        return sent, (await asyncio.wait_for(answer, 60)).partition(b"\r\n")[0]


NOT_HTTP = {
    "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
    "a long header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
    "a long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a raw control character": b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
}


async def test_what_is_not_http_does_not_harm_the_next_caller(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for name, raw in NOT_HTTP.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.write(raw)
                await asyncio.wait_for(writer.drain(), 2)
                got = await asyncio.wait_for(reader.read(64), 2)
                assert not got.startswith(b"HTTP/1.1 5"), name
            writer.close()
            assert (await client.get("/health/live")).status_code == 200, name


async def test_no_request_in_flight_is_lost_on_sigterm(server: Server, make_key: MakeKey) -> None:
    key = {"Authorization": f"Bearer {await make_key()}"}
    async with httpx.AsyncClient(base_url=server.url, headers=key, timeout=60) as client:
        await client.get("/v1/requests/none")
        jobs = [asyncio.create_task(client.get("/v1/requests/none")) for _ in range(50)]
        await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        got = await asyncio.gather(*jobs, return_exceptions=True)
    assert server.process.wait(60) == 0
    answered = [answer for answer in got if isinstance(answer, httpx.Response)]
    assert {answer.status_code for answer in answered} <= {404}
    assert all(isinstance(answer, httpx.Response | httpx.TransportError) for answer in got)


@pytest.mark.parametrize(("host", "words"), [("127.0.0.1", "choose another port"), ("192.0.2.1", "address of this")])
def test_where_nobody_can_listen_it_says_so_and_what_to_do(settings: Settings, host: str, words: str) -> None:
    where = {"DATABASE_URL": settings.database_url, "SECRET_KEY": settings.secret_key}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = [sys.executable, "-m", "service", "api", "--host", host, "--port", str(taken.getsockname()[1])]
        done = subprocess.run(
            arguments, env=os.environ | where, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert f"Nobody can listen on {host} port" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_to_look_whether_one_can_listen_takes_no_connection_from_who_does(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[socket.socket] = []

    class Watched(socket.socket):
        def listen(self, *backlog: int) -> None:
            heard.append(self)
            super().listen(*backlog)

    with socket.socket() as beside:
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        beside.bind(("127.0.0.1", 0))
        beside.listen()
        monkeypatch.setattr(socket, "socket", Watched)
        assert refusal(*beside.getsockname()) == ""
        assert heard == []
    with socket.create_server(("127.0.0.1", 0)) as alone:
        assert "choose another port" in refusal(*alone.getsockname())
