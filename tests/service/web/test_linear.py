"""No request costs more than its size: time is linear, the event loop runs on, and whatever the shape it is no 5xx."""

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.core.errors import BadRequest, Unavailable
from service.settings import Settings
from service.web.json_body import MAX_VALUES, count_values, read
from service.web.request import INLINE_BYTES, LARGE_BODY, PLAIN_BYTES, Decoder
from tests.layout.repository import ROOT

MIB = 1 << 20
JSON = {"Content-Type": "application/json"}
NUL = rb'"\u0000"'
JOB = b'{"type":"x","input":{"a":'


def keys(count: int) -> Iterator[bytes]:
    return (b'"%x":""' % number for number in range(count))


def repeated(count: int) -> bytes:
    """An object whose last two keys are equal."""
    return b"{" + b",".join([*keys(count - 1), b'"%x":""' % (count - 2)]) + b"}"


SHAPES: dict[str, bytes] = {
    "duplicate keys": repeated(32_000),
    "duplicate keys, few of them": repeated(8_000),
    "duplicate keys in the first of many": b'{"a":[' + b'{"a":1,"a":1},' * 50_000 + b"0]}",
    "keys": b"{" + b",".join(keys(90_000)) + b"}",
    "unknown fields": b'{"to":"ada@example.org",' + b",".join(keys(9_000)) + b"}",
    "objects with keys": b'{"a":[' + b'{"a":"","b":""},' * 60_000 + b"0]}",
    "numbers": b'{"a":[' + b"0," * (MIB // 2 - 10) + b"0]}",
    "floats": b'{"a":[' + b"1.5e3," * 170_000 + b"0]}",
    "nulls": b'{"a":[' + b"null," * 200_000 + b"0]}",
    "texts": b'{"a":[' + b'"",' * 340_000 + b"0]}",
    "empty objects": b'{"a":[' + b"{}," * 340_000 + b"0]}",
    "nested lists": b'{"a":[' + b"[[[[]]]]," * 110_000 + b"0]}",
    "depth": b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "depth of objects": b'{"a":' * 150_000 + b"0" + b"}" * 150_000,
    "open lists": b'{"a":' + b"[" * 1_000_000,
    "quotes": b'{"a":' + b'""' * 500_000 + b"}",
    "escapes": b'{"a":"' + rb"\n" * 500_000 + b'"}',
    "escaped quotes": b'{"a":"' + rb"\"" * 500_000 + b'"}',
    "backslashes": b'{"a":"' + b"\\" * 1_000_000 + b'"}',
    "a long number": b'{"a":' + b"9" * 1_000_000 + b"}",
    "a long fraction": b'{"a":0.' + b"9" * 1_000_000 + b"}",
    "a long key": b'{"' + b"k" * 1_000_000 + b'":0}',
    "NUL below a long key": b'{"' + b"k" * 500_000 + b'":[' + b'"",' * 100_000 + NUL + b"]}",
    "many NUL below a long key": b'{"' + b"k" * 500_000 + b'":[' + (NUL + b",") * 50_000 + b"0]}",
    "NUL of a job": JOB[:-4] + b'"' + b"k" * 500_000 + b'":[' + b'"",' * 100_000 + NUL + b"]}}",
    "commas in a text": b'{"subject":"' + b"," * 1_000_000 + b'"}',
    "surrogates": b'{"a":"' + rb"\ud800" * 170_000 + b'"}',
    "many templates": b'{"emails":[' + b'{"to":1},' * 1_001 + b"0]}",
    "white space": b"{" + b" " * 1_000_000 + b"}",
    "not UTF-8": b'{"a":"' + b"\xff" * 1_000_000 + b'"}',
}
"""Bodies of about 1 MiB, each the most that one thing can be made to cost."""

ROUTES = [
    ("POST", "/v1/emails"),
    ("POST", "/v1/emails/batch"),
    ("POST", "/v1/emails/bulk"),
    ("POST", "/v1/jobs"),
    ("POST", "/v1/notifications"),
    ("PUT", "/v1/templates/welcome"),
    ("POST", "/v1/inbound/bounces"),
]


def cost(of: Callable[[bytes], object], body: bytes) -> float:
    """The processor time of this thread in seconds that `of(body)` takes: the least of three runs."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(BadRequest):
            of(body)
        found.append(time.thread_time() - began)
    return min(found)


GROWING: dict[str, Callable[[int], bytes]] = {
    "duplicate keys": repeated,
    "objects": lambda size: b'{"a":[' + b'{"a":""},' * size + b"0]}",
    "texts with commas": lambda size: b'{"a":[' + b'",,,,,,,,,,,,",' * size + b"0]}",
    "escaped quotes": lambda size: b'{"a":"' + rb"\",," * size + b'"}',
    "depth": lambda size: b'{"a":' + b"[" * size,
}


@pytest.mark.parametrize("shape", GROWING)
def test_eight_times_the_body_costs_about_eight_times_the_work(shape: str) -> None:
    small, large = (GROWING[shape](size) for size in (1_000, 8_000))
    assert cost(read, large) < 24 * cost(read, small)  # a square would be 64 times


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'{"a": [1, 2, {"b": ",[{"}]}', 5),
        (rb'{"a": "\",[", "b": "\\", "c": [",\\\"", []]}', 6),
        (b'{"a": "' + b"\\\\" * 400_000 + b'", "b": [",,,,"]}', 3),
        (b'{"a": "' + rb"\"" * 400_000 + b'", "b": [",,,,"]}', 3),
        (b'{"a": "' + b",[" * 400_000 + b'", "b": [",,,,"]}', 3),
    ],
)
def test_values_are_counted_outside_of_strings_only(body: bytes, values: int) -> None:
    assert count_values(body, 4) == values


def test_a_body_with_a_million_commas_in_its_text_is_read() -> None:
    assert len(read(b'{"a": "' + b"," * 5 * MAX_VALUES + b'"}')["a"]) == 5 * MAX_VALUES


def test_a_body_with_too_many_values_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadRequest, match="200,000 values"):
        read(b'{"a": [' + b"0," * MAX_VALUES + b"0]}")


async def test_no_shape_is_a_500_or_answered_at_length(api: httpx.AsyncClient) -> None:
    for shape, body in SHAPES.items():
        for method, url in ROUTES:
            response = await api.request(method, url, content=body, headers=JSON)
            assert response.status_code in (400, 413, 422), (shape, url, response.text[:300])
            assert response.headers["content-type"] == "application/problem+json"
            assert len(response.content) < 100_000, (shape, url)


async def busiest(call: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    """What `call()` returns, and the most processor time (s) that the event loop spent without a pause meanwhile."""
    spent, over = [0.0], False

    async def tick() -> None:
        last = time.thread_time()
        while not over:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            spent.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    found = await call()
    over = True
    await ticking
    return found, max(spent)


async def test_the_event_loop_runs_while_a_large_body_is_decoded(api: httpx.AsyncClient) -> None:
    for shape in ("objects with keys", "floats", "NUL of a job"):
        body = SHAPES[shape]
        response, spent = await busiest(partial(api.post, "/v1/jobs", content=body, headers=JSON))
        assert response.status_code == 422
        assert spent < cost(read, body) / 2, shape


async def test_the_event_loop_runs_while_a_batch_of_large_emails_is_accepted(api: httpx.AsyncClient) -> None:
    html = "<p>Good morning, ladies and gentlemen.</p>" * 25_000
    email = {"to": "ada@example.org", "subject": "Hello", "html": html}

    async def accept(body: bytes) -> None:
        response = await api.post("/v1/emails/batch", content=body, headers=JSON)
        assert response.status_code == 202

    few, many = (json.dumps({"emails": [email] * count}).encode() for count in (3, 15))
    await accept(few)
    spent = {body: [(await busiest(partial(accept, body)))[1] for _ in range(2)] for body in (few, many)}
    assert min(spent[many]) < 3 * max(spent[few])  # a statement stores three of them


async def test_bodies_that_wait_to_be_decoded_are_bounded_in_bytes() -> None:
    decoder, body, end = Decoder(max_bytes=3 * INLINE_BYTES), b"x" * INLINE_BYTES, threading.Event()

    def decode(body: bytes) -> int:
        end.wait(60)
        return len(body)

    three = [asyncio.create_task(decoder.run(decode, body)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await decoder.run(decode, body)
    end.set()
    assert await asyncio.gather(*three) == [INLINE_BYTES] * 3
    assert await decoder.run(decode, body) == INLINE_BYTES


async def test_a_route_without_attachments_takes_one_mebibyte(api: httpx.AsyncClient) -> None:
    body = b'{"type":"x","input":{"a":"' + b"x" * PLAIN_BYTES + b'"}}'
    for url, status in (("/v1/jobs", 413), ("/v1/notifications", 413), ("/v1/emails", 422), ("/v1/emails/batch", 422)):
        assert (await api.post(url, content=body, headers=JSON)).status_code == status, url


def test_nginx_lets_through_what_a_route_takes(settings: Settings) -> None:
    config = (ROOT / "deploy/nginx/callboard.conf").read_text(encoding="utf-8")
    assert re.search(r"^    client_max_body_size 1m;", config, re.MULTILINE)
    places = re.findall(r"location ~ (\S+) \{[^}]*client_max_body_size (\w+);", config)
    large = [
        route.path
        for route in create_app(settings).app.app.routes  # type: ignore[attr-defined]  # without the edge and its lanes
        for handler in getattr(route, "route_handlers", ())
        if handler.opt.get(LARGE_BODY)
    ]
    assert len(large) >= 7
    for path in large:
        plain = re.sub(r"\{[^}]*\}", "x", path)
        assert any(re.search(place, plain) and size in ("0", "25m") for place, size in places), path


@pytest.mark.parametrize("url", ["/console/sign-in", "/u/x.y"])
async def test_a_form_is_refused_before_it_is_read(api: httpx.AsyncClient, url: str) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 24 * MIB:
            sent += INLINE_BYTES
            yield b"x" * INLINE_BYTES

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await api.post(url, content=endless(), headers=headers)
    assert response.status_code in (404, 413)
    assert sent < 6 * MIB  # the rest of a refused body is discarded up to 4 MiB


async def test_a_form_of_many_fields_is_refused_in_words(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for count, status in ((2_000, 401), (2_001, 400), (20_000, 400), (100_000, 413)):
        response = await api.post("/console/sign-in", content=b"&".join([b"a="] * count), headers=headers)
        assert response.status_code == status, count


async def test_a_row_of_a_file_has_as_many_values_as_a_row_needs(api: httpx.AsyncClient) -> None:
    rows = b"\n".join(body for body in SHAPES.values() if b"\n" not in body)
    long = b'{"id":"ada","data":[' + b"{}," * 40_000 + b"0]}"
    response = await api.request(
        "PATCH", "/v1/users", content=b"\n".join([long, rows]), headers={"Content-Type": "application/x-ndjson"}
    )
    assert response.status_code in (400, 413, 422)
    alone = await api.request("PATCH", "/v1/users", content=long, headers={"Content-Type": "application/x-ndjson"})
    assert "10,000 values" in alone.text
