"""What we push is what Celery and kombu push, field by field."""

from __future__ import annotations

import datetime as dt
import json
from base64 import b64decode
from decimal import Decimal
from typing import Any
from uuid import UUID

import kombu.utils.json
import pytest
import redis
from celery import Celery

from callboard_workers.message import Message, Priority
from callboard_workers.redis.protocol import HIDDEN, bindings, encode, encode_body, list_key, list_keys

ID = UUID("0193e6a0-0000-7000-8000-000000000001")
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
OURS_ALONE = {"argsrepr", "kwargsrepr", "reply_to", "delivery_tag", "origin"}
"""Fields whose value differs on purpose: arguments are hidden, nobody waits for a reply, tags are random."""


def captured(url: str, queue: str = "email", **options: Any) -> tuple[str, dict[str, Any]]:
    """The list and the envelope that a stock Celery client writes."""
    app = Celery("stock", broker=url)
    app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9]}
    app.now = lambda: NOW  # type: ignore[method-assign]
    app.send_task("emails.send_email", args=[7, "ä"], kwargs={"b": None}, task_id=str(ID), queue=queue, **options)
    client = redis.Redis.from_url(url, decode_responses=True)
    [key] = [key for key in client.scan_iter() if client.type(key) == "list"]
    return key, json.loads(client.lindex(key, 0))


def ours(**fields: Any) -> Message:
    return Message(id=ID, actor="emails.send_email", args=(7, "ä"), kwargs={"b": None}, queue="email", **fields)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"priority": 0}, {"priority": Priority.CRITICAL}),
        ({"priority": 6}, {"priority": Priority.NORMAL}),
        ({"priority": 9, "countdown": 90, "expires": 120}, {"priority": Priority.LOW, "delay": 90, "expires": 120}),
        (
            {"priority": 3, "headers": {"request_id": "r1"}},
            {"priority": Priority.HIGH, "headers": {"request_id": "r1"}},
        ),
    ],
)
def test_a_direct_message_is_what_celery_writes(redis_url: str, options: Any, fields: Any) -> None:
    key, theirs = captured(redis_url, **options)
    message = ours(**fields)
    mine = json.loads(encode(message, now=NOW))
    assert list_key("email", message.priority.number) == key
    assert mine.keys() == theirs.keys()
    assert json.loads(b64decode(mine.pop("body"))) == json.loads(b64decode(theirs.pop("body")))
    for part in ("headers", "properties"):
        assert mine[part].keys() == theirs[part].keys()
        for name, value in theirs.pop(part).items():
            if name not in OURS_ALONE:
                assert mine[part][name] == value, name
        mine.pop(part)
    assert mine == theirs


def test_the_bindings_are_those_kombu_declares(redis_url: str) -> None:
    captured(redis_url, "bound", priority=0)  # kombu declares a queue once per process
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    for key, member in bindings("bound"):
        assert client.smembers(key) == {member}


def test_a_prefix_goes_before_every_key() -> None:
    assert list_keys("q", "p:") == ("p:q", "p:q\x06\x163", "p:q\x06\x166", "p:q\x06\x169")
    assert all(key.startswith("p:_kombu") for key, _ in bindings("q", "p:"))


def test_a_doorbell_carries_the_id_and_nothing_of_the_content() -> None:
    message = ours(delay=60, expires=5, tenant_id=ID, headers={"request_id": "r1"})
    envelope = json.loads(encode(message, durable=True))
    assert json.loads(b64decode(envelope["body"]))[:2] == [[], {}]
    headers = envelope["headers"]
    assert headers["id"] == str(ID)
    assert headers["durable"] is True
    assert (headers["request_id"], headers["tenant_id"]) == ("r1", str(ID))
    assert headers["eta"] is None  # the row knows when it is due, and when it expires
    assert headers["expires"] is None
    assert headers["argsrepr"] == headers["kwargsrepr"] == HIDDEN


@pytest.mark.parametrize(
    "value",
    [
        ID,
        NOW,
        NOW.date(),
        NOW.time(),
        Decimal("1.50"),
        b"\xff\x00",
        {"deep": [ID, (1, None)]},
        "\u2028\U0001f600",
        2**70,
    ],
)
def test_celery_reads_back_the_value_that_was_sent(value: Any) -> None:
    args, kwargs, embed = kombu.utils.json.loads(b64decode(encode_body((value,), {"k": value})))
    plain = {"deep": [ID, [1, None]]} if isinstance(value, dict) else value
    assert args == [plain]
    assert kwargs == {"k": plain}
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


def test_a_value_without_a_json_form_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="cannot carry object"):
        encode_body((object(),), {})


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("headers", [{}, {"request_id": 'r"1'}, {"root_id": "r", "parent_id": "p"}, {"durable": "no"}])
def test_no_field_is_written_twice_whatever_a_message_inherits(durable: bool, headers: dict[str, str]) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    message = Message(id=ID, actor='a."ä"', queue="q\\", tenant_id=ID, headers=headers, args=() if durable else (1,))
    found = json.loads(encode(message, durable=durable), object_pairs_hook=once)
    expected = {"tenant_id": str(ID), "root_id": str(ID), "parent_id": None} | headers
    expected |= {"durable": True} if durable else {}
    assert expected.items() <= found["headers"].items()
    assert found["headers"]["task"] == 'a."ä"'
    assert found["properties"]["delivery_info"] == {"exchange": "", "routing_key": "q\\"}
    assert found["properties"]["correlation_id"] == found["headers"]["id"] == str(ID)
    assert json.loads(b64decode(found["body"]))[0] == ([] if durable else [1])


def test_every_message_has_a_tag_of_its_own() -> None:
    tags = {json.loads(encode(ours(), durable=True))["properties"]["delivery_tag"] for _ in range(3)}
    assert len(tags) == 3
