"""The short way answers as Litestar's own way does, to good requests and bad ones."""

from collections.abc import AsyncIterator

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import MakeKey, alive

MAIL = b'{"to": "ada@example.org", "subject": "Hi", "text": "Hello"}'
REQUESTS: list[tuple[str, dict[str, str], bytes]] = [
    ("good", {}, MAIL),
    ("no key", {"Authorization": ""}, MAIL),
    ("wrong key", {"Authorization": "Bearer cb_live_nobody"}, MAIL),
    ("no scope", {"Authorization": "reader"}, MAIL),
    ("no body", {}, b""),
    ("broken", {}, b'{"to": '),
    ("a list", {}, b"[]"),
    ("faults", {}, b'{"to": ["x", 7], "surprise": 1}'),
    ("not JSON", {"Content-Type": "text/plain"}, MAIL),
    ("compressed", {"Content-Encoding": "gzip"}, MAIL),
    ("no such host", {"Host": "a b\\c"}, MAIL),
    ("bad key of idempotency", {"Idempotency-Key": ""}, MAIL),
]
CHANGING = {"x-request-id", "location", "date"}


@pytest.fixture
async def both(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of the application with its short ways, and of the same without."""
    edge = create_app(settings)
    async with alive(edge):
        lanes = edge.app.lanes  # type: ignore[attr-defined]
        assert ("POST", "/v1/emails") in lanes

        async def without(scope: object, receive: object, send: object) -> None:
            held = dict(lanes)
            lanes.clear()
            try:
                await edge(scope, receive, send)  # type: ignore[arg-type]
            finally:
                lanes.update(held)

        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://callboard.test") as short,
            httpx.AsyncClient(transport=httpx.ASGITransport(without), base_url="http://callboard.test") as long,  # type: ignore[arg-type]
        ):
            yield short, long


@pytest.mark.parametrize(("headers", "body"), [case[1:] for case in REQUESTS], ids=[case[0] for case in REQUESTS])
async def test_both_ways_answer_the_same(
    both: tuple[httpx.AsyncClient, httpx.AsyncClient], make_key: MakeKey, headers: dict[str, str], body: bytes
) -> None:
    key = f"Bearer {await make_key('emails:send')}"
    if headers.get("Authorization") == "reader":
        headers = {**headers, "Authorization": f"Bearer {await make_key('emails:read', tenant='readers')}"}
    given = {"Content-Type": "application/json", "Authorization": key, **headers}
    short, long = [await client.post("/v1/emails", content=body, headers=given) for client in both]
    assert short.status_code == long.status_code
    assert told(short) == told(long)
    assert {name: value for name, value in short.headers.items() if name not in CHANGING} == {
        name: value for name, value in long.headers.items() if name not in CHANGING
    }


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "HEAD"])
async def test_other_methods_of_its_path_are_litestars(
    both: tuple[httpx.AsyncClient, httpx.AsyncClient], make_key: MakeKey, method: str
) -> None:
    headers = {"Authorization": f"Bearer {await make_key()}"}
    short, long = [await client.request(method, "/v1/emails", headers=headers) for client in both]
    assert (short.status_code, short.headers.get("allow")) == (long.status_code, long.headers.get("allow"))


def told(answer: httpx.Response) -> dict[str, object]:
    """What is said, without what differs between any two requests."""
    changing = {"id", "task_id", "request_id", "message_id", "created_at", "updated_at", "next_attempt_at"}
    return {name: value for name, value in answer.json().items() if name not in changing}
