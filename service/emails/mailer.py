"""Sends a mail: renders, builds, and hands it to the mail server or to the simulator. One for each event loop.

Whoever sends comes through here: the actor, with a row and a fence; a direct call, with neither.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from service.emails.inbound.report import Report
from service.emails.mime import Mail, build
from service.emails.simulator import is_simulated, simulate
from service.emails.smtp import Reply, Transport
from service.settings import Settings

LARGE = 1024 * 1024  # bytes of attachments from which a mail is built in a thread

BeforeDot = Callable[[], Awaitable[None]]


class SendingDisabled(Exception):
    """MAIL_SEND is false: nothing is handed to the mail server."""


class Sent(msgspec.Struct, frozen=True):
    """What became of a mail that was taken: the server's reply, and what simulated receivers report of it."""

    reply: Reply
    simulated: bool = False
    reports: tuple[Report, ...] = ()


class Mailer:
    """The way out of one process, bound to the loop it is made on."""

    def __init__(self, transport: Transport, *, enabled: bool = True, mailbox: bool = False) -> None:
        """`enabled`: whether anything may be sent. `mailbox`: the server is the development mailbox, safe for tests."""
        self.transport = transport
        self._enabled = enabled
        self._mailbox = mailbox

    @classmethod
    def of(cls, settings: Settings) -> "Mailer":
        """Make the mailer that the settings describe; call it on the loop that uses it."""
        transport = Transport.of(settings)
        return cls(transport, enabled=settings.mail_send, mailbox=settings.smtp_mailbox)

    async def send(
        self, mail: Mail, recipients: Sequence[str], *, mode: str, attempt: int, before_dot: BeforeDot
    ) -> Sent:
        """Send one mail to the recipients of its envelope; `before_dot` is awaited before it cannot be taken back.

        A mail of a `test` key, or for the simulator, reaches no mail server but the development mailbox. Raises
        SmtpError, MimeRefused, SendingDisabled, and whatever `before_dot` raises.
        """
        data = await _build(mail)
        simulated = mode != "live" or is_simulated(recipients)
        answer = simulate(recipients, attempt) if simulated else None
        if answer is not None and not self._mailbox:
            await before_dot()
            return Sent(answer.reply, True, answer.reports)
        if not self._enabled:
            raise SendingDisabled
        taken = answer.reply.accepted if answer is not None else recipients
        reply = await self.transport.send(mail.sender.addr_spec, taken, data, before_dot)
        if answer is None:
            return Sent(reply)
        refused = {**answer.reply.refused, **reply.refused}
        return Sent(msgspec.structs.replace(reply, refused=refused), reports=answer.reports)

    async def close(self) -> None:
        """Finish what is under way and say goodbye to the server."""
        await self.transport.close()


async def _build(mail: Mail) -> bytes:
    if sum(len(file.content) for file in mail.attachments) > LARGE:
        return await asyncio.to_thread(build, mail)
    return build(mail)
