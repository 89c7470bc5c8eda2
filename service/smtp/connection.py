"""One open connection and the mail transactions on it, with the fence before the final dot.

    [RSET]  MAIL  RCPT…  DATA      written at once where the server offers PIPELINING (RFC 2920)
    354  →  the whole mail without its dot  →  drained  →  await before_dot(refused)  →  `.`  →  the reply

Whatever goes wrong before the dot is written drops the connection: the server has read no end of data and must not
deliver (RFC 5321, section 4.1.1.4). Whatever goes wrong after it, short of a definite reply, is ambiguous. The reply to
each RCPT is definite either way: `before_dot` gets those that refused, and every later error carries them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from service.smtp.body import BLOCK, DOT, Body
from service.smtp.envelope import Envelope, commands
from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase, Timeouts
from service.smtp.protocol import BadReply, Wire
from service.smtp.reply import Reply, ServerReply, queue_id
from service.smtp.reply_rules import refusal

RESET_AFTER = 1.0

BeforeDot = Callable[[Mapping[str, ServerReply]], Awaitable[None]]
"""Awaited when all but the dot is sent, with the recipients that the server refused beside those it accepted."""


class Connection:
    """A connection that has said EHLO and is ready for mail. One transaction at a time."""

    def __init__(self, wire: Wire, *, host: str, offers: Mapping[str, str], timeouts: Timeouts) -> None:
        self.wire = wire
        self.host = host
        self.offers = offers
        self.timeouts = timeouts
        self.mails = 0
        self.used_at = asyncio.get_running_loop().time()
        self._dirty = False

    @property
    def usable(self) -> bool:
        """True while another mail may be sent on it."""
        return self.wire.alive

    async def deliver(self, mail: Envelope, body: Body, before_dot: BeforeDot, deadline: float) -> Reply:
        """Send one mail and return the server's yes.

        `deadline` (loop time) bounds everything up to the dot. Raises SmtpError, or what `before_dot` raised.
        """
        mail_command, rcpt_commands = commands(mail, body, self.offers)
        refused = await self._announce(mail, mail_command, rcpt_commands, deadline)
        try:
            with self._dropped_on_error():
                await self._send(body, deadline)
                await before_dot(refused)
                self._check_silence()
            reply = await self._finish()
        except SmtpError as error:
            error.refused = refused
            raise
        return self._accepted(reply, mail, refused)

    async def reset(self, deadline: float) -> None:
        """Ask for a clean slate (RSET)."""
        self._write(Phase.RSET, b"RSET\r\n")
        self._expect(Phase.RSET, await self._reply(Phase.RSET, deadline))

    async def try_sender(self, sender: str, deadline: float) -> ServerReply:
        """Open a transaction with MAIL and undo it with RSET: nothing is sent. Raises SmtpError if refused."""
        self._write(Phase.MAIL, f"MAIL FROM:<{sender}>\r\n".encode())
        reply = await self._reply(Phase.MAIL, deadline)
        self._expect(Phase.MAIL, reply)
        await self.reset(deadline)
        return reply

    async def quit(self) -> None:
        """Say goodbye, best effort, within the QUIT timeout."""
        try:
            self.wire.write(b"QUIT\r\n")
            await self.wire.reply(self.timeouts.quit)
        except (OSError, BadReply):
            pass
        finally:
            self.wire.abort()

    async def _announce(
        self, mail: Envelope, mail_command: bytes, rcpt_commands: list[bytes], deadline: float
    ) -> dict[str, ServerReply]:
        """Say RSET if due, MAIL, RCPT and DATA; return the recipients that were refused beside accepted ones."""
        turn = [
            (Phase.MAIL, mail_command),
            *((Phase.RCPT, command) for command in rcpt_commands),
            (Phase.DATA, b"DATA"),
        ]
        if self._reset_due():
            turn.insert(0, (Phase.RSET, b"RSET"))
        self._dirty = True
        say = self._say_at_once if "pipelining" in self.offers else self._say_in_turn
        try:
            replies = await say(turn, deadline)
        except asyncio.CancelledError:
            self.wire.abort()
            raise
        return self._judge(mail, replies)

    async def _say_at_once(self, turn: list[tuple[Phase, bytes]], deadline: float) -> list[tuple[Phase, ServerReply]]:
        self._write(turn[0][0], b"\r\n".join(command for _, command in turn) + b"\r\n")
        return [(phase, await self._reply(phase, deadline)) for phase, _ in turn]

    async def _say_in_turn(self, turn: list[tuple[Phase, bytes]], deadline: float) -> list[tuple[Phase, ServerReply]]:
        replies: list[tuple[Phase, ServerReply]] = []
        for phase, command in turn:
            if phase is Phase.DATA and not any(at is Phase.RCPT and reply.code < 300 for at, reply in replies):
                break
            self._write(phase, command + b"\r\n")
            reply = await self._reply(phase, deadline)
            replies.append((phase, reply))
            if phase in _FATAL and reply.code >= 300:
                break
        return replies

    def _judge(self, mail: Envelope, replies: list[tuple[Phase, ServerReply]]) -> dict[str, ServerReply]:
        """Raise the first refusal that ends the transaction; return the refusals that do not."""
        try:
            for phase, reply in replies:
                if phase in _FATAL:
                    self._expect(phase, reply)
            answers = [reply for phase, reply in replies if phase is Phase.RCPT]
            refused = {
                recipient: reply
                for recipient, reply in zip(mail.recipients, answers, strict=True)
                if not 200 <= reply.code <= 299
            }
            if len(refused) == len(mail.recipients):
                raise self._all_refused(refused)
            data = replies[-1][1]
            if data.code != 354:
                raise self._refused(Phase.DATA, data)
        except SmtpError:
            if replies[-1][1].code == 354:
                self.wire.abort()  # the server waits for a mail that has nobody to go to
            raise
        return refused

    async def _send(self, body: Body, deadline: float) -> None:
        """Write the mail without its dot and wait until the kernel has it all."""
        try:
            for block in body.blocks():
                self.wire.write(block)
                await self.wire.drain(self._limit(Phase.BODY, deadline))
                if len(body.data) > BLOCK:
                    await asyncio.sleep(0)  # the loop has others to serve, and the server may be saying no
                self._check_silence()
        except OSError as error:
            raise self._lost(Phase.BODY, error) from error

    def _check_silence(self) -> None:
        """Refuse to go on if the server spoke or left in the middle of the mail: its next reply must be the dot's."""
        if self.wire.alive:
            return
        early, failure = self.wire.unread(), self.wire.failure
        self.wire.abort()
        if early is not None:
            raise self._refused(Phase.BODY, early)
        raise self._lost(Phase.BODY, failure or BadReply("the server spoke in the middle of the mail"))

    async def _finish(self) -> ServerReply:
        """Write the dot, the point of no return, and wait for the verdict."""
        self._write(Phase.BODY, DOT)
        with self._dropped_on_error():
            try:
                reply = await self.wire.reply(self.timeouts.dot)
            except (OSError, BadReply) as error:
                raise self._lost(Phase.DOT, error) from error
        self.mails += 1
        self.used_at = asyncio.get_running_loop().time()
        self._dirty = not 200 <= reply.code <= 299
        self._expect(Phase.DOT, reply)
        return reply

    @contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        """Between 354 and the verdict any error, a cancellation too, drops the connection."""
        try:
            yield
        except BaseException:
            self.wire.abort()
            raise

    def _accepted(self, reply: ServerReply, mail: Envelope, refused: dict[str, ServerReply]) -> Reply:
        return Reply(
            code=reply.code,
            text=reply.text,
            host=self.host,
            enhanced=reply.enhanced,
            queue_id=queue_id(reply.text),
            accepted=tuple(recipient for recipient in mail.recipients if recipient not in refused),
            refused=refused,
        )

    def _reset_due(self) -> bool:
        return self._dirty or (self.mails > 0 and asyncio.get_running_loop().time() - self.used_at > RESET_AFTER)

    def _write(self, phase: Phase, data: bytes) -> None:
        try:
            self.wire.write(data)
        except OSError as error:
            raise self._lost(phase, error) from error

    async def _reply(self, phase: Phase, deadline: float) -> ServerReply:
        try:
            reply = await self.wire.reply(self._limit(phase, deadline))
        except (OSError, BadReply) as error:
            raise self._lost(phase, error) from error
        # 421: the server is about to close, there is no reply to what was said after this. 3yz answers DATA only.
        if reply.code == 421 or (300 <= reply.code <= 399 and phase is not Phase.DATA):
            raise self._refused(phase, reply)
        return reply

    def _limit(self, phase: Phase, deadline: float) -> float:
        return min(self.timeouts.of(phase), deadline - asyncio.get_running_loop().time())

    def _expect(self, phase: Phase, reply: ServerReply) -> None:
        if not 200 <= reply.code <= 299:
            raise self._refused(phase, reply)

    def _refused(self, phase: Phase, reply: ServerReply) -> SmtpError:
        error = refusal(phase, reply, self.host)
        if reply.code == 421 or error.reason == "protocol_error":
            self.wire.abort()
        return error

    def _all_refused(self, refused: dict[str, ServerReply]) -> SmtpError:
        errors = [refusal(Phase.RCPT, reply, self.host) for reply in refused.values()]
        error = next((error for error in errors if error.kind is Kind.TEMPORARY), errors[0])
        error.refused = refused
        return error

    def _lost(self, phase: Phase, cause: Exception) -> SmtpError:
        """The conversation broke off: an answer that did not come, or made no sense."""
        self.wire.abort()
        sure = phase is not Phase.DOT
        return SmtpError(
            phase,
            None,
            str(cause),
            Kind.TEMPORARY if sure else Kind.AMBIGUOUS,
            reason=broken(cause),
            backoff=Backoff.SHORT if sure else Backoff.NEVER,
            host=self.host,
        )


# The commands whose refusal ends the transaction; RCPT's and DATA's are judged together with the others.
_FATAL = frozenset({Phase.RSET, Phase.MAIL})


def broken(cause: BaseException) -> str:
    """Name what broke a conversation off."""
    if isinstance(cause, TimeoutError):
        return "timeout"
    return "protocol_error" if isinstance(cause, BadReply) else "connection_lost"
