"""Reads a file of rows as it comes in: a piece of it in memory, whatever its size."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from service.core.errors import BadRequest, ServiceError, TooLarge, TooManyRequests, UnsupportedMedia
from service.web.auth import plain_header
from service.web.request import Request
from service.web.row_format import Lines, Read

MAX_UPLOAD = 256 * 1024 * 1024
"""Bytes of one file."""
UPLOADS = 4
"""Files that one process reads at once, of each tenant one: a bulk's holds a connection to Postgres to its end."""
IDLE = 20.0
"""Seconds between two pieces of a file, and those in which it may come as slowly as it likes."""
LEAST = 64 * 1024
"""Bytes a second that a file comes in at, or faster: nobody keeps a place for long."""
PART = 2 * 1024
"""Bytes that are read in one go, at most some thousand lines, most of them empty."""
SLICE = 50
"""Rows that are read in one go, a few milliseconds: other requests have their turn in between."""


def reader_of(request: Request, readers: Mapping[str, Callable[[], Lines]]) -> Lines:
    """Choose a reader by the media type. Raises UnsupportedMedia (415)."""
    make = readers.get(plain_header(request, b"content-type").partition(";")[0].strip().lower())
    if make is None:
        raise UnsupportedMedia(f"Send rows as {' or '.join(readers)}.")
    if plain_header(request, b"content-encoding").strip().lower() not in ("", "identity"):
        raise UnsupportedMedia("Send the file as it is, without Content-Encoding.")
    return make()


@asynccontextmanager
async def place(request: Request) -> AsyncIterator[None]:
    """Take a place among the files that this process reads at once. Raises TooManyRequests."""
    taken: set[UUID] = request.app.state.runtime.state.setdefault("uploads", set())
    tenant_id = request.user.tenant_id
    if tenant_id in taken:
        raise TooManyRequests("Another file of yours is being read; send one after the other.", retry_after=5)
    if len(taken) >= UPLOADS:
        raise TooManyRequests("Other files are being read; try again in a moment.", retry_after=5)
    taken.add(tenant_id)
    try:
        yield
    finally:
        taken.discard(tenant_id)


async def rows(request: Request, reader: Lines) -> AsyncIterator[Read]:
    """Give the rows of the body, as it comes in. Raises TooLarge, BadRequest, ServiceError (408)."""
    count = 0
    async for piece in _pieces(request):
        for start in range(0, len(piece), PART):
            for row in reader.feed(piece[start : start + PART]):
                yield row
                count += 1
                if count % SLICE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
    for row in reader.close():
        yield row


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    size, waited, clock = 0, 0.0, asyncio.get_running_loop().time
    while True:
        asked = clock()
        try:
            async with asyncio.timeout(min(IDLE, IDLE + size / LEAST - waited)):
                event = await request.receive()
        except TimeoutError:
            detail = f"The file came too slowly: it takes {LEAST // 1024} KiB a second. Send it in smaller ones."
            raise ServiceError(detail, status=408, code="body-timeout", title="Timeout") from None
        waited += clock() - asked  # what we take ourselves to read and to store is not the caller's
        if event["type"] != "http.request":
            raise BadRequest("The caller left before the file was whole.", code="body-cut")
        size += len(event["body"])
        if size > MAX_UPLOAD:
            raise TooLarge(f"A file has at most {MAX_UPLOAD:,} bytes; send the rest in another one.")
        yield event["body"]
        if not event.get("more_body"):
            return
