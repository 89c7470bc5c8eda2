"""Whatever is pushed to a queue, the worker lives and the next message runs."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis

from callboard_workers.celery.control import requeue_dead
from callboard_workers.message import Message
from callboard_workers.redis.keys import Keys
from callboard_workers.redis.protocol import encode, encode_body
from service.dev.stack import Stack
from tests.wire.process import ROOT, Worker, client, eventually, inspect


def good() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(Message(actor="demo.work", args=("poison",))))
    return found


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    envelope = good()
    change(envelope)
    return json.dumps(envelope).encode()


def header(name: str, value: Any) -> bytes:
    return changed(lambda envelope: envelope["headers"].__setitem__(name, value))


def body(value: bytes, **outer: Any) -> bytes:
    return changed(lambda envelope: envelope.update(body=base64.b64encode(value).decode(), **outer))


def embed(**canvas: Any) -> bytes:
    return body(json.dumps([["poison"], {}, {"callbacks": None, "errbacks": None, **canvas}]).encode())


BURIED = {
    "not JSON": b"{",
    "a bare number": b"42",
    "a list": b"[1, 2]",
    "null bytes": b"\x00\x00",
    "invalid UTF-8": b'{"headers": "\xff\xfe"}',
    "nested 100,000 deep": b"[" * 100_000,
    "no headers": changed(lambda envelope: envelope.pop("headers")),
    "headers a list": changed(lambda envelope: envelope.update(headers=[])),
    "properties null": changed(lambda envelope: envelope.update(properties=None)),
    "no body": changed(lambda envelope: envelope.pop("body")),
    "body not base64": changed(lambda envelope: envelope.update(body="%%%")),
    "body of garbage": body(b"\x80\x81garbage"),
    "body of pickle": body(pickle.dumps([(), {}, {}]), **{"content-type": "application/x-python-serialize"}),
    "content type yaml": body(b"- []", **{"content-type": "application/x-yaml"}),
    "unknown encoding": body(b"[[], {}, {}]", **{"content-encoding": "klingon"}),
    "args not a list": body(b'["ab", {}, {}]'),
    "kwargs not a dict": body(b"[[], [], {}]"),
    "wrong arity": body(b'[["a", 1.0, 3, 4], {}, {}]'),
    "wrong type": body(b'[[["not", "text"]], {}, {}]'),
    "unknown tag": body(b'[[{"__type__": "gun", "__value__": 1}], {}, {}]'),
    "unknown task": header("task", "demo.nobody"),
    "task a number": header("task", 5),
    "id missing": changed(lambda envelope: envelope["headers"].pop("id")),
    "id empty": header("id", ""),
    "id of a megabyte": header("id", "x" * 1_000_000),
    "eta not a date": header("eta", "tomorrow"),
    "expires garbage": header("expires", [1]),
    "eta in the year 9999": header("eta", "9999-12-31T23:59:59+00:00"),
    "expires in a hundred years": header("expires", "2126-01-01T00:00:00+00:00"),
    "timelimit garbage": header("timelimit", ["a", {}]),
    "retries negative": header("retries", -5),
    "retries huge": header("retries", 10**30),
}
SURVIVED = {
    "priority out of range": changed(lambda envelope: envelope["properties"].update(priority=10**9)),
    "reply_to garbage": changed(lambda envelope: envelope["properties"].update(reply_to={"a": 1})),
    "delivery_info missing": changed(lambda envelope: envelope["properties"].pop("delivery_info")),
    "delivery_tag missing": changed(lambda envelope: envelope["properties"].pop("delivery_tag")),
    "chord garbage": embed(chord="x"),
    "callbacks garbage": embed(callbacks=[1, "x"]),
    "10 MB of arguments": changed(lambda envelope: envelope.update(body=encode_body(("x" * 10_000_000,), {}))),
    "an id twice": header("id", "0193e6a0-0000-7000-8000-000000000001"),
    "an id that is no UUID": header("id", "order 66"),
}


@pytest.fixture(scope="module")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(stack.redis_url, tmp_path_factory.mktemp("worker")) as running:
        yield running


@pytest.fixture
def server(stack: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url) as connection:
        connection.delete("workers:dead")
        yield connection


def runs_the_next(worker: Worker, stack: Stack, tag: str) -> None:
    client(stack.redis_url).send_task("demo.work", args=[tag], queue="default")
    worker.wait_for(f"end {tag}")
    assert worker.alive


@pytest.mark.parametrize("case", BURIED)
def test_what_cannot_run_is_buried_with_its_reason(
    case: str, worker: Worker, stack: Stack, server: redis.Redis
) -> None:
    server.lpush("default", BURIED[case])
    eventually(lambda: server.llen("workers:dead") == 1, "it is with the dead letters")
    runs_the_next(worker, stack, case.replace(" ", "-"))
    [letter] = inspect(client(stack.redis_url), worker)._request("dead")[worker.node]
    assert letter["reason"]
    if " in " in case:
        assert "years ahead" in letter["reason"]


@pytest.mark.parametrize("case", SURVIVED)
def test_what_is_odd_harms_nobody(case: str, worker: Worker, stack: Stack, server: redis.Redis) -> None:
    server.lpush("default", SURVIVED[case])
    runs_the_next(worker, stack, case.replace(" ", "-"))


def test_the_command_line_knows_the_dead_letters(worker: Worker, stack: Stack, server: redis.Redis) -> None:
    server.lpush("default", BURIED["unknown task"])
    eventually(lambda: server.llen("workers:dead") == 1, "it is with the dead letters")
    command = [sys.executable, "-m", "celery", "-A", "tests.wire.demo", "inspect", "-d", worker.node, "dead", "5"]
    answer = subprocess.run(command, cwd=ROOT, env=worker.env, capture_output=True, text=True, check=True)
    assert "demo.nobody" in answer.stdout


def test_a_dead_letter_can_be_put_back(worker: Worker, stack: Stack, server: redis.Redis) -> None:
    control = client(stack.redis_url).control
    server.lpush("default", BURIED["unknown task"])
    eventually(lambda: server.llen("workers:dead") == 1, "it is with the dead letters")
    [answer] = control.broadcast(
        "requeue_dead", arguments={"limit": 1}, destination=[worker.node], reply=True, timeout=60, limit=1
    )
    assert answer[worker.node] == {"ok": "1 put back"}
    eventually(lambda: server.llen("workers:dead") == 1, "it was tried again")


def test_what_is_put_back_and_fails_again_meanwhile_is_counted_once(
    worker: Worker, stack: Stack, server: redis.Redis
) -> None:
    server.lpush("default", *[header("task", f"demo.nobody{number}") for number in range(120)])
    eventually(lambda: server.llen("workers:dead") == 120, "all are with the dead letters")
    [answer] = client(stack.redis_url).control.broadcast(
        "requeue_dead", arguments={"limit": 1000}, destination=[worker.node], reply=True, timeout=60, limit=1
    )
    assert answer[worker.node] == {"ok": "120 put back"}
    eventually(lambda: server.llen("workers:dead") == 120, "each has failed again")


class Interrupted(redis.Redis):
    """A connection in whose midst somebody else puts back what is left, and all of it fails again."""

    calls = 0

    def lindex(self, name: Any, index: int) -> Any:
        self.calls += 1
        if self.calls == 3:
            left: Any = self.lrange(name, 0, -1)
            self.delete(name)
            for number, entry in enumerate(left):
                self.lpush(name, msgspec.msgpack.encode({**msgspec.msgpack.decode(entry), "at": 2.0 + number}))
        return super().lindex(name, index)


def test_what_somebody_else_put_back_meanwhile_is_not_put_back_twice(stack: Stack, server: redis.Redis) -> None:
    letters = [
        msgspec.msgpack.encode({"reason": "r", "at": 1.0, "key": "unserved", "envelope": header("id", f"i{number}")})
        for number in range(7)
    ]
    server.lpush("workers:dead", *letters)
    with Interrupted.from_url(stack.redis_url) as connection:
        front = SimpleNamespace(redis=connection, keys=Keys(""))
        state = SimpleNamespace(consumer=SimpleNamespace(pool=SimpleNamespace(front=front)))
        assert requeue_dead(state) == {"ok": "2 put back"}
    assert (server.llen("unserved"), server.llen("workers:dead")) == (2, 5)
    server.delete("unserved", "workers:dead")
