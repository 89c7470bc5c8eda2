"""Looks at the mail server: every step up to MAIL, and on request a real mail all the way."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

from service.cli.doctor.finding import Finding, Mark, Section
from service.mail.addresses import Address, parse_address
from service.mail.faults import Refused
from service.mail.message import Mail, build
from service.settings import Settings
from service.smtp import ServerReply, SmtpError, Step, Transport
from service.smtp.probe import IMPATIENT
from service.smtp.probe_steps import mend


async def examine(settings: Settings, send_to: str | None) -> Section:
    """Look at the server of SMTP_HOST; with `send_to`, send one mail there."""
    findings: list[Finding] = []
    try:
        sender = parse_address(settings.mail_from, private=True)
    except Refused as error:
        wrong = f"MAIL_FROM is not an address: {error}"
        findings.append(Finding(what="sender", mark=Mark.WRONG, detail=wrong, mend="Set MAIL_FROM to one address."))
        return Section(name="SMTP", findings=findings)
    if not settings.mail_send:
        off = "MAIL_SEND is false: mail is accepted and rendered, never sent"
        findings.append(Finding(what="sending", mark=Mark.DOUBTFUL, detail=off, mend="Set MAIL_SEND=true."))
    transport = Transport.of(settings, timeouts=IMPATIENT)
    try:
        findings += [_finding(step) for step in await transport.probe(sender.addr_spec)]
        if send_to is not None and all(finding.mark is not Mark.WRONG for finding in findings):
            await _send(transport, sender, send_to, findings)
    finally:
        await transport.close(grace=1)
    return Section(name="SMTP", findings=findings)


def _finding(step: Step) -> Finding:
    mark = Mark.WELL if step.ok else Mark.WRONG
    return Finding(what=step.name, mark=mark, detail=step.detail, mend=step.mend, seconds=step.seconds)


async def _send(transport: Transport, sender: Address, send_to: str, findings: list[Finding]) -> None:
    """Send one mail and note the server's reply."""
    try:
        to = parse_address(send_to, private=True)
    except Refused as error:
        findings.append(Finding(what="send", mark=Mark.WRONG, detail=str(error), mend="Give one address."))
        return

    mail = letter(sender, to)
    started = time.perf_counter()
    try:
        reply = await transport.send(sender.addr_spec, [to.addr_spec], build(mail), _no_fence)
        mark, detail, cure = Mark.WELL, f"{reply.code} {reply.text} (Message-ID {mail.message_id})", ""
    except SmtpError as error:
        mark, detail, cure = Mark.WRONG, str(error), mend(error)
    findings.append(Finding(what="send", mark=mark, detail=detail, mend=cure, seconds=time.perf_counter() - started))


async def _no_fence(_: Mapping[str, ServerReply]) -> None:
    """Nothing stands in the way of a test mail."""


def letter(sender: Address, to: Address) -> Mail:
    """Write the test mail."""
    now = datetime.now(UTC)
    return Mail(
        message_id=f"<doctor.{uuid4().hex}@{sender.addr_spec.rpartition('@')[2]}>",
        date=now,
        sender=sender,
        to=[to],
        subject="A test mail of callboard doctor",
        text=f"Mail gets through. Sent at {now:%Y-%m-%d %H:%M:%S} UTC by `callboard doctor --send-to`.\n",
    )
