"""A mail server that misbehaves on request, and remembers exactly what it accepted: the oracle of the fault tests.

    async with Sink({"rcpt": [Rule("450 4.7.1 greylisted", times=3)], "dot": [Rule(then="close")]}) as sink:
        ...                                   # talk to sink.host, sink.port
        assert sink.count(message_id) == 1

A rule applies to one phase: banner, ehlo, starttls, auth, rset, mail, rcpt, data, body (after the first line of the
mail), dot, quit. The first rule of a phase that still has `times` left wins; without one the server behaves.
"""

import asyncio
import base64
import hmac
import re
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

SERVER = "sink.test"
_MESSAGE_ID = re.compile(rb"^Message-ID:[ \t]*(<[^>\r\n]*>)", re.IGNORECASE | re.MULTILINE)


@dataclass
class Rule:
    """What to do instead of behaving: say something else (or nothing), slowly, and go on, hang up or fall silent."""

    say: str | bytes | None = None
    then: Literal["go", "close", "hang"] = "go"
    delay: float = 0.0  # seconds before anything
    until: asyncio.Event | None = None  # waits for this before anything
    drip: float = 0.0  # seconds between bytes
    times: int = 1_000_000
    when: str = ""  # only for a line that has this in it
    accept: bool = False  # at the dot: take the mail first


class Receivers:
    """What recipients answer, by their own addresses and whatever else is going on.

    `refused-…@` never exists; `deferred-…@` asks to come back for the first once or twice; all others are there.
    """

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()

    def answer(self, address: str) -> str | None:
        """The reply to RCPT; None for a yes."""
        if address.startswith("refused-"):
            return "550 5.1.1 no such user"
        if not address.startswith("deferred-"):
            return None
        self._asked[address] += 1
        if self._asked[address] > 1 + len(address) % 2:
            return None
        return "451 4.7.1 greylisted" if self._asked[address] == 1 else "452 4.5.3 too many recipients"


@dataclass
class Mail:
    """One accepted mail, dots unstuffed."""

    message_id: str
    sender: str
    recipients: list[str]
    data: bytes


@dataclass
class Session:
    """One connection: what it said, and whether it was encrypted."""

    lines: list[str] = field(default_factory=list)
    encrypted: bool = False
    user: str = ""
    body_bytes: int = 0

    @property
    def verbs(self) -> list[str]:
        """The commands, by their first word."""
        return [line.split(" ")[0].split(":")[0].upper() for line in self.lines]


class _Hangup(Exception):
    pass


class Sink:
    """The server; an async context manager."""

    def __init__(
        self,
        rules: dict[str, list[Rule]] | None = None,
        *,
        extensions: tuple[str, ...] = ("PIPELINING", "SIZE 40000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"),
        cap: int = 1_000_000,
        delay: float = 0.0,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        users: dict[str, str] | None = None,
        receivers: Receivers | None = None,
    ) -> None:
        self.rules = rules or {}
        self.extensions = extensions
        self.cap = cap
        self.delay = delay
        self.users = users
        self.receivers = receivers
        self.refused: set[str] = set()  # recipients that were refused for good
        self._starttls = starttls
        self._tls = tls
        self.mails: list[Mail] = []
        self.sessions: list[Session] = []
        self.bare: int = 0  # lines that did not end in CRLF, and lone CRs
        self.open = 0
        self.peak = 0
        self.host, self.port = "127.0.0.1", 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Sink":
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=1 << 20, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset every open connection."""
        for writer in self._writers:
            writer.transport.abort()

    def stop_listening(self) -> None:
        """Refuse new connections."""
        if self._server is not None:
            self._server.close()

    def count(self, message_id: str) -> int:
        """How often a mail was accepted."""
        return Counter(mail.message_id for mail in self.mails)[message_id]

    def received(self) -> dict[str, int]:
        """How often each mail was accepted, by its Message-ID."""
        return dict(Counter(mail.message_id for mail in self.mails))

    def pairs(self) -> dict[tuple[str, str], int]:
        """How often each email was accepted for each recipient, by Message-ID and address."""
        return dict(Counter((mail.message_id, address) for mail in self.mails for address in mail.recipients))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.peak = max(self.peak, self.open)
        self._writers.add(writer)
        session = Session(encrypted=self._tls is not None)
        self.sessions.append(session)
        try:
            await _Conversation(self, session, reader, writer).run()
        except (_Hangup, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    def rule(self, phase: str, line: str) -> Rule | None:
        """Return the rule that applies, and count it."""
        for rule in self.rules.get(phase, ()):
            if rule.times > 0 and rule.when in line:
                rule.times -= 1
                return rule
        return None


class _Conversation:
    def __init__(
        self, sink: Sink, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.sink, self.session, self.reader, self.writer = sink, session, reader, writer
        self.sender: str | None = None
        self.recipients: list[str] = []

    async def run(self) -> None:
        if self.sink.open > self.sink.cap:
            await self.say("421 4.7.0 too many connections")
            raise _Hangup
        await self.answer("banner", "", f"220 {SERVER} ESMTP")
        while True:
            line = (await self._line()).decode("utf-8", "replace").rstrip("\r\n")
            self.session.lines.append(line)
            verb, _, rest = line.partition(" ")
            handler = getattr(self, f"do_{verb.lower()}", None)
            if handler is None:
                await self.say("500 5.5.2 what?")
            else:
                await handler(line, rest)

    async def do_ehlo(self, line: str, rest: str) -> None:
        offers = list(self.sink.extensions)
        if self.sink._starttls is not None and not self.session.encrypted:
            offers.append("STARTTLS")
        if self.sink.users is not None:
            offers.append("AUTH PLAIN LOGIN CRAM-MD5" if not any("AUTH" in offer for offer in offers) else "HELP")
        lines = [f"250-{offer}" for offer in (SERVER, *offers)]
        lines[-1] = lines[-1].replace("250-", "250 ")
        await self.answer("ehlo", line, "\r\n".join(lines))

    async def do_helo(self, line: str, rest: str) -> None:
        await self.answer("helo", line, f"250 {SERVER}")

    async def do_starttls(self, line: str, rest: str) -> None:
        await self.answer("starttls", line, "220 2.0.0 go ahead")
        if self.sink._starttls is None:
            raise _Hangup
        await self.writer.start_tls(self.sink._starttls)
        self.session.encrypted = True

    async def do_auth(self, line: str, rest: str) -> None:
        method, _, initial = rest.partition(" ")
        user, password = await self._credentials(method.upper(), initial)
        good = self.sink.users is not None and self.sink.users.get(user) == password
        if good:
            self.session.user = user
        await self.answer("auth", line, "235 2.7.0 welcome" if good else "535 5.7.8 authentication failed")

    async def _credentials(self, method: str, initial: str) -> tuple[str, str]:
        if method == "PLAIN":
            _, user, password = base64.b64decode(initial).decode().split("\0")
            return user, password
        if method == "LOGIN":
            password = await self._ask("334 UGFzc3dvcmQ6")
            return base64.b64decode(initial).decode(), password
        challenge = b"<1.2@sink.test>"
        answer = await self._ask("334 " + base64.b64encode(challenge).decode())
        user, digest = answer.split(" ")
        password = (self.sink.users or {}).get(user, "")
        return user, password if hmac.new(password.encode(), challenge, "md5").hexdigest() == digest else "wrong"

    async def _ask(self, challenge: str) -> str:
        await self.say(challenge)
        return base64.b64decode(await self._line()).decode()

    async def do_rset(self, line: str, rest: str) -> None:
        self.sender, self.recipients = None, []
        await self.answer("rset", line, "250 2.0.0 ok")

    async def do_noop(self, line: str, rest: str) -> None:
        await self.answer("noop", line, "250 2.0.0 ok")

    async def do_mail(self, line: str, rest: str) -> None:
        self.recipients = []
        if self.sender is not None:
            await self.say("503 5.5.1 nested MAIL")
        elif await self.answer("mail", line, "250 2.1.0 ok"):
            self.sender = line.partition("<")[2].partition(">")[0]

    async def do_rcpt(self, line: str, rest: str) -> None:
        if self.sender is None:
            await self.say("503 5.5.1 MAIL first")
            return
        address = line.partition("<")[2].partition(">")[0]
        usual = (self.sink.receivers and self.sink.receivers.answer(address)) or "250 2.1.5 ok"
        rule = self.sink.rule("rcpt", line) if usual.startswith("2") else None
        if (usual if rule is None else str(rule.say)).startswith("5"):
            self.sink.refused.add(address)
        if await self._obey(rule, usual) and usual.startswith("2"):
            self.recipients.append(address)

    async def do_data(self, line: str, rest: str) -> None:
        if not self.recipients:
            await self.answer("data", line, "554 5.5.1 no valid recipients")
        elif await self.answer("data", line, "354 end with <CRLF>.<CRLF>"):
            await self._receive()

    async def do_quit(self, line: str, rest: str) -> None:
        await self.answer("quit", line, "221 2.0.0 bye")
        raise _Hangup

    async def _receive(self) -> None:
        lines: list[bytes] = []
        while (line := await self._line()) != b".\r\n":
            self.session.body_bytes += len(line)
            self.sink.bare += not line.endswith(b"\r\n") or b"\r" in line[:-2]
            lines.append(line[1:] if line.startswith(b".") else line)
            if len(lines) == 1 and "body" in self.sink.rules:
                await self.answer("body", "", "")
        data = b"".join(lines)
        found = _MESSAGE_ID.search(data)
        mail = Mail(found[1].decode() if found else "", self.sender or "", self.recipients, data)
        self.sender, self.recipients = None, []
        rule = self.sink.rule("dot", mail.message_id)
        if rule is None or rule.accept:
            self.sink.mails.append(mail)
        await self._obey(rule, f"250 2.0.0 Ok: queued as {len(self.sink.mails):08X}")

    async def answer(self, phase: str, line: str, usual: str) -> bool:
        """Reply by the rule of the phase, or as usual; True if it was a 2yz or 3yz."""
        return await self._obey(self.sink.rule(phase, line), usual)

    async def _obey(self, rule: Rule | None, usual: str) -> bool:
        await asyncio.sleep(self.sink.delay + (rule.delay if rule else 0))
        if rule is not None and rule.until is not None:
            await rule.until.wait()
        if rule is None:
            await self.say(usual)
            return True
        if rule.say is not None or rule.then == "go":
            said = rule.say if rule.say is not None else usual
            await self.say(said, rule.drip)
            good = said[:1] in ("2", "3", b"2", b"3")
        else:
            good = False
        if rule.then == "hang":
            await asyncio.sleep(3600)
        if rule.then == "close":
            raise _Hangup
        return good

    async def say(self, text: str | bytes, drip: float = 0.0) -> None:
        data = text if isinstance(text, bytes) else text.encode() + b"\r\n"
        if data == b"\r\n":
            return
        for piece in [data[i : i + 1] for i in range(len(data))] if drip else [data]:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(drip)

    async def _line(self) -> bytes:
        line = await self.reader.readline()
        if not line:
            raise _Hangup
        return line
