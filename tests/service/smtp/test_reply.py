"""A server's words: cleaned, their enhanced code and queue id found."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp import Phase, Timeouts
from service.smtp.protocol import BadReply, Wire
from service.smtp.reply import ServerReply, clean, enhanced_code, queue_id


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2.0.0 Ok: queued as 4Q1abcXYZ", "4Q1abcXYZ"),
        ("OK id=1sABCD-0000000XyZ-1a2B", "1sABCD-0000000XyZ-1a2B"),
        ("2.0.0 4AJ2dX1k012345 Message accepted for delivery", "4AJ2dX1k012345"),
        ("2.0.0 8c5e7a1b Message accepted for delivery", "8c5e7a1b"),
        ("2.6.0 <m@x> [InternalId=123456789, Hostname=EX1.example] Queued mail for delivery", "123456789"),
        ("2.0.0 OK  1700000000 a640c23a62f3a-a1b2c3.456 - gsmtp", "a640c23a62f3a-a1b2c3.456"),
        ("Ok 0100018bcdef0123-11112222-3333-4444-555", "0100018bcdef0123-11112222-3333-4444-555"),
        ("Message Queued (3F2504E0-4F89-11D3-9A0C-0305E82C3301.1)", "3F2504E0-4F89-11D3-9A0C-0305E82C3301.1"),
        ("ok 1700000000 qp 12345", "12345"),
        ("2.0.0 Message queued with id 2ab34cd5.", "2ab34cd5"),
        ("Ok: queued as <a-b-c@mailpit>", "a-b-c@mailpit"),
        ("OK", None),
        ("2.0.0 accepted", None),
        ("Great success", None),
    ],
)  # fmt: skip
def test_the_queue_id_is_found_where_the_form_is_known(text: str, found: str | None) -> None:
    assert queue_id(text) == found


@pytest.mark.parametrize(
    ("code", "text", "found"),
    [
        (550, "5.1.1 no", "5.1.1"),
        (250, "2.0.0 ok", "2.0.0"),
        (450, "5.1.1 does not agree", None),
        (550, "5.1.1", "5.1.1"),
        (550, "5.1.1x", None),
        (550, "no 5.1.1", None),
        (550, "5.1234.1 no", None),
    ],
)
def test_an_enhanced_code_must_agree_with_the_reply(code: int, text: str, found: str | None) -> None:
    assert enhanced_code(code, text) == found
    assert ServerReply(code, text).enhanced == found


@given(st.binary(max_size=3000))
def test_a_servers_words_always_fit_a_log_and_a_database(data: bytes) -> None:
    text = clean(data)
    text.encode()
    assert len(text) <= 1000
    assert not any(ord(char) < 32 and char != "\n" for char in text)
    assert clean(text) == text


def test_broken_unicode_of_the_library_is_mended() -> None:
    assert clean(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf?"


class _Line(asyncio.Transport):
    """As much of a transport as a wire needs to hear."""

    def abort(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


@given(
    st.lists(
        st.tuples(st.integers(200, 599), st.lists(st.text("abc -.", max_size=9), min_size=1, max_size=4)), max_size=6
    ),
    st.data(),
)
def test_replies_are_the_same_however_they_arrive(said: list[tuple[int, list[str]]], data: st.DataObject) -> None:
    stream = b""
    for code, lines in said:
        marks = ["-"] * (len(lines) - 1) + [" "]
        stream += "".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    wire = Wire()
    wire.take_over(_Line())
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        wire.data_received(stream[start:end])
    heard = []
    while (reply := wire.unread()) is not None:
        heard.append((reply.code, reply.text))
    assert heard == [(code, "\n".join(line.strip() for line in lines).strip()) for code, lines in said]
    assert wire.alive


@pytest.mark.parametrize(
    "noise", [b"hello\r\n", b"25\r\n", b"250_x\r\n", b"150 x\r\n", b"600 x\r\n", b"2x0 x\r\n", b"\r\n"]
)
def test_noise_ends_the_wire(noise: bytes) -> None:
    wire = Wire()
    wire.take_over(_Line())
    wire.data_received(noise)
    assert isinstance(wire.failure, BadReply)


def test_what_a_server_can_make_us_hold_is_bounded() -> None:
    for flood in (b"2" * 100, b"250-" + b"x" * 90 + b"\r\n", b"250 x\r\n"):
        wire = Wire()
        wire.take_over(_Line())
        for _ in range(10_000):
            wire.data_received(flood)
        assert isinstance(wire.failure, BadReply)
        assert len(wire._buffer) + len(wire._replies) + sum(map(len, wire._lines)) < 50_000


async def test_drained_means_that_the_kernel_has_it_all() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
    wire = Wire()
    wire.take_over(transport)

    async def read_slowly() -> None:
        while await loop.sock_recv(there, 8192):
            pass

    reading = asyncio.create_task(read_slowly())
    for _ in range(200):
        wire.write(b"x" * 60_000)  # less than the high-water mark that transports have by default
        await wire.drain(5)
        assert transport.get_write_buffer_size() == 0
    wire.abort()
    await reading
    there.close()


def test_every_phase_has_a_timeout_and_all_scale() -> None:
    half = Timeouts().scaled(0.5)
    for phase in Phase:
        assert half.of(phase) == Timeouts().of(phase) / 2
    assert Timeouts().dot == 600
