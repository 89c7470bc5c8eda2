"""A mail arrives as it was, with CRLF line ends; nothing in it can end it early or become a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp import Kind, SmtpError
from service.smtp.body import normalize, prepare
from tests.faults.sink import Sink
from tests.service.smtp.conftest import Fence, MakeTransport

HOSTILE = [
    b"\n.\r\nMAIL FROM:<evil@example.org>\r\n",
    b"\r\n.\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<x@example.org>\r\nDATA\r\nhi\r\n.\r\n",
    b"\r.\r",
    b"\n.\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r\r\n.\r\r\n",
    b"..",
    b".",
    b"",
    b"\r",
    b"\n",
    b"no end",
    b"\x00\xff\r\n",
]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\x00", b"\xff"])).map(b"".join))
def test_no_line_is_a_lone_dot_and_no_cr_or_lf_is_bare(data: bytes) -> None:
    body = prepare(data)
    assert body.data.endswith(b"\r\n")
    assert body.data.count(b"\r") == body.data.count(b"\n") == body.data.count(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + body.data
    lines = body.data.split(b"\r\n")
    assert b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines) == normalize(data)
    assert body.size == len(normalize(data))
    assert b"".join(body.blocks()) == body.data


@given(st.binary())
def test_a_body_already_in_order_is_not_touched(data: bytes) -> None:
    once = normalize(data)
    assert normalize(once) == once


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_hostile_bodies_arrive_as_one_mail(transport_to: MakeTransport, fence: Fence, hostile: bytes) -> None:
    data = b"Subject: x\r\n\r\n" + hostile
    async with Sink() as sink:
        transport = transport_to(sink)
        await transport.send("from@example.org", ["to@example.org"], data, fence)
        await transport.send("from@example.org", ["to@example.org"], b"Subject: next\r\n\r\n", fence)
    assert [each.data for each in sink.mails] == [normalize(data), b"Subject: next\r\n\r\n"]
    assert sink.bare == 0
    assert [each.sender for each in sink.mails] == ["from@example.org"] * 2


async def test_thirty_megabytes_arrive_whole(transport_to: MakeTransport, fence: Fence) -> None:
    data = b"Subject: big\r\n\r\n" + (b".x" * 450 + b"\r\n") * 33_000
    async with Sink() as sink:
        await transport_to(sink).send("from@example.org", ["to@example.org"], data, fence)
    assert sink.mails[0].data == data


async def test_a_mail_over_the_servers_size_is_not_even_begun(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(extensions=("SIZE 1000",)) as sink:
        transport = transport_to(sink)
        with pytest.raises(SmtpError) as caught:
            await transport.send("from@example.org", ["to@example.org"], b"x" * 2000, fence)
        assert (caught.value.kind, caught.value.reason) == (Kind.PERMANENT, "message_too_large")
        await transport.send("from@example.org", ["to@example.org"], b"x" * 500, fence)
    assert sink.sessions[0].lines[1] == "MAIL FROM:<from@example.org> SIZE=502"
    assert len(sink.sessions) == 1
