"""A mail's bytes as the DATA phase carries them (RFC 5321, sections 2.3.8 and 4.5.2). Pure."""

from collections.abc import Iterator

import msgspec

BLOCK = 256 * 1024
DOT = b".\r\n"


class Body(msgspec.Struct, frozen=True):
    """A mail ready for DATA: CRLF line ends only, leading dots doubled, ends with CRLF, without the final dot.

    `size` is the mail's size in bytes before the doubling, as the SIZE parameter wants it (RFC 1870).
    """

    data: bytes
    size: int
    eight_bit: bool
    utf8_headers: bool

    def blocks(self) -> Iterator[memoryview]:
        """Yield the bytes in blocks small enough that each can be awaited."""
        view = memoryview(self.data)
        for start in range(0, len(view), BLOCK):
            yield view[start : start + BLOCK]


def prepare(data: bytes) -> Body:
    """Make a mail ready for DATA."""
    lines = normalize(data)
    stuffed = lines.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    ascii_only = lines.isascii()
    return Body(
        data=stuffed,
        size=len(lines),
        eight_bit=not ascii_only,
        utf8_headers=not ascii_only and not lines.partition(b"\r\n\r\n")[0].isascii(),
    )


def normalize(data: bytes) -> bytes:
    """Turn every bare CR and bare LF into CRLF, and end with one."""
    pairs = data.count(b"\r\n")
    if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return data if data.endswith(b"\r\n") else data + b"\r\n"
