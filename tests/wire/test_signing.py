"""With signing keys a worker runs only what somebody signed who has one; and it obeys only the verbs it is told to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import signals
from prometheus_client import REGISTRY

from callboard_workers.message import Message
from callboard_workers.redis.in_flight import FORGED_KEPT
from callboard_workers.redis.protocol import DOORBELL_BODY, encode, encode_body
from callboard_workers.redis.signing import Signer
from service.dev.stack import Stack
from service.settings import Settings
from tests.wire.process import ROOT, Worker, client, eventually, inspect

NEW, OLD, OTHERS = "the-new-key-of-tests", "the-old-key-of-tests", "a-key-of-somebody-else"


@pytest.fixture(scope="module")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    options = {"control_verbs": ["ping", "dead"]}
    folder = tmp_path_factory.mktemp("signed")
    with Worker(stack.redis_url, folder, options=options, SIGNING_KEYS=f"{NEW} {OLD}") as running:
        yield running


@pytest.fixture
def server(stack: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url) as connection:
        connection.delete("workers:dead", "workers:forged")
        yield connection


def signed(tag: str, key: str | None = NEW, **more: Any) -> dict[str, Any]:
    message = Message(actor=more.pop("actor", "demo.work"), args=(tag,), **more)
    found: dict[str, Any] = json.loads(encode(message, signer=Signer([key]) if key else None))
    return found


@pytest.mark.parametrize("key", [NEW, OLD])
def test_what_is_signed_with_any_of_the_keys_runs(worker: Worker, server: redis.Redis, key: str) -> None:
    server.lpush("default", json.dumps(signed(key, key)))
    worker.wait_for(f"end {key}")


def test_what_is_sent_again_is_signed_by_the_worker(worker: Worker, server: redis.Redis) -> None:
    envelope = json.loads(encode(Message(actor="demo.flaky", args=("f", 3)), signer=Signer([OLD])))
    server.lpush("default", json.dumps(envelope))
    worker.wait_for("attempt3 f")


def swapped(envelope: dict[str, Any]) -> None:
    envelope["headers"]["task"] = "demo.fail"


def other_arguments(envelope: dict[str, Any]) -> None:
    envelope["body"] = encode_body(["other"], {})


def earlier(envelope: dict[str, Any]) -> None:
    envelope["headers"]["eta"] = None


def of_another_tenant(envelope: dict[str, Any]) -> None:
    envelope["headers"]["tenant_id"] = "00000000-0000-7000-8000-000000000000"


def called_a_doorbell(envelope: dict[str, Any]) -> None:
    envelope["headers"]["durable"] = True
    envelope["headers"]["signature"] = "0" * 64


def a_doorbell_for_plain_celery(envelope: dict[str, Any]) -> None:
    envelope["headers"] |= {"durable": True, "task": "demo.chatty", "signature": None}
    envelope["body"] = DOORBELL_BODY


FORGERIES: dict[str, tuple[str | None, Callable[[dict[str, Any]], None]]] = {
    "unsigned": (None, lambda _: None),
    "signed with another key": (OTHERS, lambda _: None),
    "another task": (NEW, swapped),
    "other arguments": (NEW, other_arguments),
    "another time": (NEW, earlier),
    "another tenant": (NEW, of_another_tenant),
    "a signature that is none": (NEW, lambda envelope: envelope["headers"].update(signature=["é"])),
    "said to be a doorbell": (NEW, called_a_doorbell),
    "a doorbell for a task without rows": (NEW, a_doorbell_for_plain_celery),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forgery_is_a_dead_letter_and_never_runs(
    worker: Worker, stack: Stack, server: redis.Redis, case: str
) -> None:
    key, change = FORGERIES[case]
    tag = case.replace(" ", "-")
    envelope = signed(tag, key, delay=0.01)
    change(envelope)
    server.lpush("default", json.dumps(envelope))
    eventually(lambda: server.llen("workers:forged") == 1, "it is kept apart from the dead letters")
    assert server.llen("workers:dead") == 0
    [letter] = inspect(client(stack.redis_url), worker)._request("dead")[worker.node]
    assert "TASK_SIGNING_KEYS" in letter["reason"]
    server.lpush("default", json.dumps(signed(f"after-{tag}")))
    worker.wait_for(f"end after-{tag}")
    assert not worker.notes()[f"start {tag}"]


def test_a_stock_client_signs_as_the_document_says(worker: Worker, stack: Stack) -> None:
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "security.md").read_text("utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    exec(block.replace("the first of TASK_SIGNING_KEYS", NEW), names)
    try:
        app = client(stack.redis_url)
        app.send_task("demo.work", args=["stöck"], kwargs={"seconds": 0}, queue="default", countdown=0.1, expires=60)
    finally:
        signals.before_task_publish.disconnect(names["sign"])
    worker.wait_for("end stöck")


def test_a_verb_that_is_not_allowed_does_nothing(worker: Worker, stack: Stack) -> None:
    control = client(stack.redis_url).control
    for verb in ("shutdown", "pool_restart", "revoke"):
        [answer] = control.broadcast(verb, destination=[worker.node], reply=True, timeout=60, limit=1)
        assert "WORKER_CONTROL_VERBS" in answer[worker.node]["error"]
    assert control.ping([worker.node], timeout=60, limit=1)
    assert worker.alive


def test_the_setting_makes_the_signer_and_hides_the_keys() -> None:
    made = Settings.from_env({"TASK_SIGNING_KEYS": f"{NEW}, {OLD}"})
    assert made.signer() is not None
    assert NEW not in repr(made) + repr(made.signer())
    assert Settings.from_env({}).signer() is None
    assert REGISTRY.get_sample_value("celery_messages_unsigned_total") is not None


def test_forged_messages_push_no_dead_letter_out(worker: Worker, server: redis.Redis) -> None:
    """Whatever cannot run and nobody signed goes to a list of its own: malformed, unknown, unsigned."""
    server.lpush("default", json.dumps(signed("real", actor="demo.nobody")))
    eventually(lambda: server.llen("workers:dead") == 1, "a signed message that nobody can run is a dead letter")
    forgeries = [b"not a message", json.dumps(signed("x", None, actor="demo.nobody")), json.dumps(signed("y", OTHERS))]
    for forged in forgeries * 400:
        server.lpush("default", forged)
    eventually(lambda: server.llen("default") == 0 and server.llen("workers:forged") == FORGED_KEPT, "all are refused")
    assert server.llen("workers:dead") == 1
