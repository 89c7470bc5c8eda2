"""Reads a file of rows as it comes in: a piece of it in memory, whatever its size."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from service.errors import BadRequest, ServiceError, TooLarge, TooManyRequests, UnsupportedMedia
from service.web.lines import Lines, Read
from service.web.principal import plain_header
from service.web.request import Request

MAX_UPLOAD = 256 * 1024 * 1024
"""Bytes of one file."""
IDLE = 20.0
"""Seconds between two pieces of a file."""
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


def place(places: asyncio.Semaphore) -> AbstractAsyncContextManager[None]:
    """Take a place among the files that this process reads at once. Raises TooManyRequests."""
    if places.locked():
        raise TooManyRequests("Other files are being read; try again in a moment.", retry_after=5)
    return places


async def rows(request: Request, reader: Lines) -> AsyncIterator[Read]:
    """Give the rows of the body, as it comes in. Raises TooLarge, BadRequest, ServiceError (408)."""
    size = count = 0
    while True:
        try:
            async with asyncio.timeout(IDLE):
                event = await request.receive()
        except TimeoutError:
            raise ServiceError("The file did not go on.", status=408, code="body-timeout", title="Timeout") from None
        if event["type"] != "http.request":
            raise BadRequest("The caller left before the file was whole.", code="body-cut")
        size += len(event["body"])
        if size > MAX_UPLOAD:
            raise TooLarge(f"A file has at most {MAX_UPLOAD:,} bytes; send the rest in another one.")
        for row in reader.feed(event["body"]):
            yield row
            count += 1
            if count % SLICE == 0:
                await asyncio.sleep(0)
        if not event.get("more_body"):
            break
    for row in reader.close():
        yield row
