"""Sends a mail: renders, builds, and hands it to the mail server or to the simulator. One for each event loop.

Whoever sends comes through here: the actor, with a row and a fence; a direct call, with neither.
"""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from service.emails.inbound.report import Report
from service.emails.inbound.tags import Tags
from service.emails.mime import Mail, build
from service.emails.senders.signing import Signers
from service.emails.simulator import is_simulated, simulate
from service.emails.smtp import BeforeDot, Reply, ServerReply, Transport
from service.emails.transports.relays import Relays
from service.emails.way import Way, envelope_sender
from service.sealing import Sealer
from service.settings import Settings

LARGE = 1024 * 1024  # bytes of attachments from which a mail is built in a thread


class SendingDisabled(Exception):
    """MAIL_SEND is false: nothing is handed to the mail server."""


class Sent(msgspec.Struct, frozen=True):
    """What became of a mail that was taken: the server's reply, and what simulated receivers report of it."""

    reply: Reply
    simulated: bool = False
    reports: tuple[Report, ...] = ()


class Mailer:
    """The way out of one process, bound to the loop it is made on."""

    def __init__(self, settings: Settings, engine: AsyncEngine, transport: Transport | None = None) -> None:
        """Make the mailer that the settings describe, or with another transport; call it on the loop that uses it."""
        self.transport = transport or Transport.of(settings)
        self._relays = Relays.of(engine, settings)
        self._signers = Signers(engine, Sealer.of(settings))
        self._enabled = settings.mail_send
        self._mailbox = settings.smtp_mailbox
        self._return_path = settings.mail_return_path
        self._notify = settings.smtp_notify
        self._tags = Tags.of(settings)

    async def send(
        self,
        mail: Mail,
        recipients: Sequence[str],
        *,
        mode: str,
        attempt: int,
        before_dot: BeforeDot,
        way: Way = Way(),  # noqa: B008 (frozen)
    ) -> Sent:
        """Send one mail to the recipients of its envelope; `before_dot` is awaited before it cannot be taken back, with
        the recipients that are refused beside others.

        A mail of a `test` key, or for the simulator, reaches no mail server but the development mailbox. Raises
        SmtpError, MimeRefused, SendingDisabled, and whatever `before_dot` raises.
        """
        data = await _build(mail)
        simulated = mode != "live" or is_simulated(recipients)
        answer = simulate(recipients, attempt) if simulated else None
        if answer is not None and not self._mailbox:
            await before_dot(answer.reply.refused)
            return Sent(answer.reply, True, answer.reports)
        if not self._enabled:
            raise SendingDisabled
        taken = recipients
        if answer is not None:
            taken, before_dot = answer.reply.accepted, _with(answer.reply.refused, before_dot)
        if way.signer is not None:
            data = await self._signers.sign(way.signer, data)
        transport = self.transport if answer is not None or way.relay is None else await self._relay(way.relay)
        # A tenant's own server may not let an address of the house through.
        return_path = self._return_path if transport is self.transport else ""
        tag = way.tag(self._tags, taken)
        reply = await transport.send(
            envelope_sender(mail.sender.addr_spec, return_path, tag),
            taken,
            data,
            before_dot,
            envid=tag,
            notify=self._notify,
            originals=way.originals(self._tags, taken),
        )
        if answer is None:
            return Sent(reply)
        refused = {**answer.reply.refused, **reply.refused}
        return Sent(msgspec.structs.replace(reply, refused=refused), reports=answer.reports)

    async def close(self) -> None:
        """Finish what is under way and say goodbye to the server."""
        await asyncio.gather(self.transport.close(), self._relays.close())

    async def _relay(self, id: UUID) -> Transport:
        """A tenant's transport; the house's where it was deleted just now."""
        return await self._relays.find(id) or self.transport


def _with(simulated: Mapping[str, ServerReply], before_dot: BeforeDot) -> BeforeDot:
    """Tell `before_dot` of the recipients that the simulator refuses as well."""

    async def both(refused: Mapping[str, ServerReply]) -> None:
        await before_dot({**simulated, **refused})

    return both


async def _build(mail: Mail) -> bytes:
    if sum(len(file.content) for file in mail.attachments) > LARGE:
        return await asyncio.to_thread(build, mail)
    return build(mail)
