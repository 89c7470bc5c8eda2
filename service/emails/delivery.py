"""Sends a mail: renders, builds, and hands it to the mail server or to the simulator. One for each event loop.

Whoever sends comes through here: the actor, with a row and a fence; a direct call, with neither.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.common.fair import current_turn
from service.core.encryption import Sealer
from service.domains.dkim_signer import Signers
from service.emails.large import Large
from service.emails.reports.tags import Tags
from service.emails.route import Way, envelope_sender
from service.emails.simulator import is_simulated, simulate
from service.mail.message import Mail, build
from service.settings import Settings
from service.smtp import BeforeDot, Reply, ServerReply, Transport
from service.transports.pools import Relays

LARGE = 1024 * 1024  # bytes of attachments from which a mail is built in a thread


PATIENCE = 300.0  # seconds that an email for the simulator waits for memory


class SendingDisabled(Exception):
    """MAIL_SEND is false: nothing is handed to the mail server."""


class Sent(msgspec.Struct, frozen=True):
    """What became of a mail that was taken: the server's reply."""

    reply: Reply
    simulated: bool = False


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
        mail: Mail | Large,
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
        data = await _build(mail) if isinstance(mail, Mail) else b""
        answer = simulate(recipients, attempt) if is_simulated(mode, recipients) else None
        if answer is not None and not self._mailbox:
            if isinstance(mail, Large):
                await self._try_out(mail)
            await before_dot(answer.refused)
            return Sent(answer, True)
        if not self._enabled:
            raise SendingDisabled
        taken = recipients
        if answer is not None:
            taken, before_dot = answer.accepted, _with(answer.refused, before_dot)
        if way.signer is not None and data:
            data = await self._signers.sign(way.signer, data)
        transport = self.transport if answer is not None or way.relay is None else await self._relay(way.relay)
        # A tenant's own server may not let an address of the house through.
        return_path = self._return_path if transport is self.transport else ""
        tag = way.tag(self._tags, taken)
        share = nullcontext() if transport is self.transport else self._relays.share(current_turn().tenant)
        with share:
            reply = await transport.send(
                envelope_sender(mail.sender.addr_spec if isinstance(mail, Mail) else mail.sender, return_path, tag),
                taken,
                data if isinstance(mail, Mail) else _Deferred(mail, self._signers, way.signer),
                before_dot,
                envid=tag,
                notify=self._notify,
                originals=way.originals(self._tags, taken),
            )
        if answer is None:
            return Sent(reply)
        return Sent(msgspec.structs.replace(reply, refused={**answer.refused, **reply.refused}))

    @staticmethod
    async def _try_out(mail: Large) -> None:
        """Build a large email that reaches no server, as one that does: what is wrong with it is found."""
        async with mail.composed(asyncio.get_running_loop().time() + PATIENCE) as whole:
            await _build(whole)

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


class _Deferred:
    """A large email as the transport reads it."""

    def __init__(self, mail: Large, signers: Signers, signer: UUID | None) -> None:
        self._mail, self._signers, self._signer = mail, signers, signer
        self.reserve_now, self.reserve, self.release = mail.reserve_now, mail.reserve, mail.release

    async def read(self) -> bytes:
        data = await _build(await self._mail.compose())
        return data if self._signer is None else await self._signers.sign(self._signer, data)


async def _build(mail: Mail) -> bytes:
    if sum(len(file.content) for file in mail.attachments) > LARGE:
        return await asyncio.to_thread(build, mail)
    return build(mail)
