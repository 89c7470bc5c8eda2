"""Reports are asked for where the server offers it (RFC 3461), and nowhere else."""

import pytest

from service.smtp import Kind, SmtpError
from tests.faults.sink import Sink
from tests.service.smtp.conftest import Fence, MakeTransport, mail

OFFERS = ("PIPELINING", "SIZE 40000000", "8BITMIME")


async def test_a_server_that_offers_dsn_is_told_what_to_report(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(extensions=(*OFFERS, "DSN")) as sink:
        transport = transport_to(sink)
        await transport.send("a@b.example", ["c@d.example"], mail(), fence, envid="abc", notify=("FAILURE", "DELAY"))
        await transport.send("a@b.example", ["c@d.example"], mail(2), fence)
        lines = [line for line in sink.sessions[0].lines if line.startswith(("MAIL", "RCPT"))]
    assert lines[0].endswith(" RET=HDRS ENVID=abc")
    assert lines[1] == "RCPT TO:<c@d.example> NOTIFY=FAILURE,DELAY"
    assert "ENVID" not in lines[2]
    assert lines[3] == "RCPT TO:<c@d.example>"


async def test_a_server_that_does_not_is_not(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(extensions=OFFERS) as sink:
        await transport_to(sink).send("a@b.example", ["c@d.example"], mail(), fence, envid="abc", notify=("FAILURE",))
        assert not any("ENVID" in line or "NOTIFY" in line for line in sink.sessions[0].lines)


@pytest.mark.parametrize(("envid", "notify"), [("a b", ()), ("a\r\nRCPT", ()), ("", ("NEVER FAILURE",))])
async def test_nothing_else_gets_into_a_command(
    transport_to: MakeTransport, fence: Fence, envid: str, notify: tuple[str, ...]
) -> None:
    async with Sink(extensions=(*OFFERS, "DSN")) as sink:
        with pytest.raises(SmtpError) as failed:
            await transport_to(sink).send("a@b.example", ["c@d.example"], mail(), fence, envid=envid, notify=notify)
        assert failed.value.kind is Kind.PERMANENT
        assert sink.sessions == []
