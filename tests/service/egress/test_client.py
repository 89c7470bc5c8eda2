"""A call to a hostile server ends, soon, with little in memory, and goes nowhere else."""

import asyncio
import gc
import gzip
import socket
import ssl
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Any

import pytest
import trustme

from callboard_workers.context import Correlation, correlation
from service.egress import Caller, CallFailed, Guard
from service.egress.client import BODY, SHOWN
from tests.service.egress.scripted import Play, endless, reply, say, scripted, silence


@asynccontextmanager
async def caller_of(
    within: float = 60.0, private: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Caller]:
    caller = Caller(Guard(private=private), within=within, tls=tls)
    try:
        yield caller
    finally:
        await caller.close()


async def failed(play: Play, within: float = 60.0) -> str:
    async with scripted(play) as server, caller_of(within) as caller:
        with pytest.raises(CallFailed) as error:
            await caller.post(server.url(), b"{}", {})
        return error.value.code


async def test_an_answer_is_told_and_the_host_is_the_name() -> None:
    async with scripted(reply(201, b"thanks", X_Kind="good")) as server, caller_of() as caller:
        answer = await caller.post(server.url("/hook?a=b", "localhost"), b'{"a":1}', {"X-Mine": "1"})
    [seen] = server.seen
    assert (answer.status, answer.body, answer.headers["x-kind"]) == (201, "thanks", "good")
    assert (seen.path, seen.body, seen.headers["x-mine"]) == ("/hook?a=b", b'{"a":1}', "1")
    assert seen.headers["host"] == f"localhost:{server.port}"
    assert seen.headers["accept-encoding"] == "identity"


async def test_a_redirect_is_an_answer_that_nobody_follows() -> None:
    async with scripted(reply(302, Location="http://169.254.169.254/latest")) as server, caller_of() as caller:
        answer = await caller.post(server.url(), b"", {})
    assert (answer.status, len(server.seen)) == (302, 1)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with scripted(reply(200)) as server, caller_of() as caller:
        assert (await caller.post(server.url(), b"", {})).status == 200


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (silence, "timeout"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", pause=0.05), "timeout"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 1000 + b"\r\n"), "too-large"),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "too-large"),
        (say(b""), "protocol"),
        (say(b"HTTP/1.1 200 OK\r\nConte"), "protocol"),
        (say(b"hello\r\n\r\n"), "protocol"),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "protocol"),
    ],
    ids=["silence", "drip", "headers", "continue", "closed", "cut", "not-http", "two-lengths"],
)
async def test_what_is_no_answer_fails_with_a_word(play: Play, code: str) -> None:
    assert await failed(play, within=1.5 if code == "timeout" else 20.0) == code


async def test_a_huge_body_is_read_to_its_bound_and_the_status_stands() -> None:
    play = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 65_536)
    async with scripted(play) as server, caller_of() as caller:
        answer = await caller.post(server.url(), b"", {})
    assert (answer.status, answer.body) == (200, "x" * SHOWN)


async def test_a_gzip_bomb_stays_closed() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < BODY
    tracemalloc.start()
    async with scripted(reply(200, bomb, Content_Encoding="gzip")) as server, caller_of() as caller:
        answer = await caller.post(server.url(), b"", {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status, len(answer.body)) == (200, SHOWN)
    assert peak < 5_000_000


async def test_nothing_inside_is_connected_to_though_its_name_looks_public() -> None:
    async with scripted(reply(200)) as server, caller_of(private=False) as caller:
        caller.guard.ports = frozenset({server.port})
        for url in (server.url(), server.url(host="localhost")):
            with pytest.raises(CallFailed) as error:
                await caller.post(url, b"", {})
            assert error.value.code == "refused"
    assert server.seen == []


async def test_a_name_that_resolves_inside_is_refused_at_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own resolver gives the address; it is the check at connect that stops the call."""
    monkeypatch.setattr("service.egress.resolver._resolve", lambda host, port: ["1.1.1.1", "127.0.0.1"])
    async with caller_of(private=False) as caller:
        with pytest.raises(CallFailed) as error:
            await caller.post("http://rebound.example/", b"", {})
    assert error.value.code == "refused"
    assert "127" not in str(error.value)


async def test_the_address_that_was_checked_is_the_one_that_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    monkeypatch.setattr("service.egress.resolver._resolve", lambda host, port: answers.pop(0))
    async with scripted(reply(200, Connection="close")) as server, caller_of() as caller:
        assert (await caller.post(server.url(host="once.example"), b"", {})).status == 200
    assert server.seen[0].headers["host"] == f"once.example:{server.port}"
    assert len(answers) == 1, "the name was looked up once for check and connection together"


async def test_tls_is_of_the_name_and_never_unverified() -> None:
    authority = trustme.CA()
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(there)
    here = ssl.create_default_context()
    authority.configure_trust(here)
    async with scripted(reply(200), tls=there) as server:
        async with caller_of(tls=here) as caller:
            assert (await caller.post(server.url(host="localhost"), b"", {})).status == 200
            with pytest.raises(CallFailed) as wrong_name:
                await caller.post(server.url(host="127.0.0.1"), b"", {})
        async with caller_of() as stranger:
            with pytest.raises(CallFailed) as unknown:
                await stranger.post(server.url(host="localhost"), b"", {})
    assert (wrong_name.value.code, unknown.value.code) == ("tls", "tls")


async def test_nobody_there_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(reply(200)) as server:
        url = server.url()

    def resolve(host: str, port: int) -> list[str]:
        if host == "nothing.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [host]

    monkeypatch.setattr("service.egress.resolver._resolve", resolve)
    async with caller_of() as caller:
        for each in (url, "http://nothing.invalid:8080/"):
            with pytest.raises(CallFailed) as error:
                await caller.post(each, b"", {})
            assert error.value.code == "connect"


async def test_a_name_that_fails_when_nobody_waits_any_more_complains_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, go = threading.Event(), threading.Event()

    def hang(host: str, port: int) -> list[str]:
        asked.set()
        go.wait(60)
        raise socket.gaierror("the name servers do not answer")

    monkeypatch.setattr("service.egress.resolver._resolve", hang)
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    guard = Guard()
    try:
        asking = asyncio.create_task(guard.resolve("example.org", 443))
        await asyncio.to_thread(asked.wait, 60)
        [looking] = guard._looking.values()
        asking.cancel()
        go.set()
        await asyncio.wait([asking, looking], timeout=60)
        del asking, looking
        gc.collect()
        await asyncio.sleep(0)
        assert (complaints, guard._looking) == ([], {})
    finally:
        loop.set_exception_handler(None)
        guard.close()


async def test_a_name_that_many_ask_for_is_looked_up_for_nobody() -> None:
    seen: list[Correlation] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
        seen.append((context or copy_context()).run(correlation.get))
        return asyncio.Task(work, loop=loop, context=context)

    loop, guard = asyncio.get_running_loop(), Guard(private=True)
    mark = correlation.set(Correlation(request_id="the-first"))
    loop.set_task_factory(factory)
    try:
        assert await guard.resolve("127.0.0.1", 443) == ["127.0.0.1"]
    finally:
        loop.set_task_factory(None)
        correlation.reset(mark)
        guard.close()
    assert seen == [Correlation()]
