"""A file of rows, however it comes, harms nobody but its sender."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from litestar.types import HTTPRequestEvent

from service.broadcasts.recipient_rows import READERS
from service.broadcasts.schemas import RecipientIn
from service.core.errors import BadRequest
from service.users import import_rows
from service.web import Request, row_upload
from service.web.row_format import Row
from tests.service.conftest import MakeKey

CSV = {"Content-Type": "text/csv"}


@pytest.mark.parametrize(
    "filling", [b"\n", b'"\n', b",\n"], ids=["lines with nothing", "quotes that stay open", "records with nothing"]
)
async def test_lines_that_give_no_row_give_others_their_turn(filling: bytes) -> None:
    body = b"id,email\n" + filling * 100_000

    async def receive() -> HTTPRequestEvent:
        return {"type": "http.request", "body": body, "more_body": False}

    async def read() -> int:
        request = Request({"type": "http"}, receive=receive)  # type: ignore[typeddict-item]
        return len([row async for row in row_upload.rows(request, import_rows.USERS["text/csv"]())])

    reading, turns = asyncio.create_task(read()), 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert await reading <= 10, "what is not closed for 128 KiB is a fault"
    assert turns >= len(body) // row_upload.PART


class Slow:
    """A file of which a byte comes when it is told to, or every now and then."""

    def __init__(self, every: float | None = None) -> None:
        self.begun, self.go_on, self._every = asyncio.Event(), asyncio.Event(), every

    async def pieces(self) -> AsyncIterator[bytes]:
        yield b"id\n"
        self.begun.set()
        while self._every is not None:
            await asyncio.sleep(self._every)
            yield b"a"
        await self.go_on.wait()
        yield b"ada\n"


async def test_a_file_that_comes_by_drops_is_given_up(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_upload, "IDLE", 0.5)
    async with asyncio.timeout(60):
        answer = await api.patch("/v1/users", content=Slow(every=0.02).pieces(), headers=CSV)
    assert (answer.status_code, answer.json()["code"]) == (408, "body-timeout")


async def test_a_tenant_has_one_place_and_leaves_the_others_theirs(
    api: httpx.AsyncClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_upload, "UPLOADS", 2)

    async def bearer(tenant: str) -> dict[str, str]:
        return {**CSV, "Authorization": f"Bearer {await make_key(tenant=tenant)}"}

    slow, other, third = Slow(), await bearer("other"), await bearer("third")
    first = asyncio.create_task(api.patch("/v1/users", content=slow.pieces(), headers=CSV))
    await slow.begun.wait()
    refused = await api.patch("/v1/topics/python/followers", content=b"id\nbob\n", headers=CSV)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert (await api.patch("/v1/users", content=b"id\nbob\n", headers=other)).status_code == 200
    slower = Slow()
    second = asyncio.create_task(api.patch("/v1/users", content=slower.pieces(), headers=other))
    await slower.begun.wait()
    assert (await api.patch("/v1/users", content=b"id\nbob\n", headers=third)).status_code == 429
    slow.go_on.set()
    assert (await first).json()["changed"] == 1
    assert (await api.patch("/v1/users", content=b"id\nbob\n", headers=CSV)).status_code == 200
    slower.go_on.set()
    assert (await second).json()["changed"] == 1


@pytest.mark.parametrize(
    "header", ["to,name,locale", "To,name,LOCALE", "to;name;locale", ' TO ;"name"; Locale ', '"to";name;locale']
)
async def test_the_header_of_a_file_may_have_any_case_and_semicolons(header: str) -> None:
    separator = ";" if ";" in header else ","
    reader = READERS["text/csv"]()
    rows = [*reader.feed(f"{header}\nada@example.org{separator}Ada{separator}de\n".encode()), *reader.close()]
    assert [row.value for row in rows if isinstance(row, Row)] == [
        RecipientIn(to="ada@example.org", variables={"name": "Ada"}, locale="de")
    ]


@pytest.mark.parametrize("header", ["to,To", "name;Name", "to,to", '"to,a";b'])
async def test_a_header_without_its_column_or_with_one_twice_is_refused(header: str) -> None:
    with pytest.raises(BadRequest):
        list(READERS["text/csv"]().feed(f"{header}\n".encode()))
