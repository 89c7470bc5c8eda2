"""SMTP on one port, the page and the API on another, both on the running loop."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from service.dev.mailbox.mail import Summary
from service.dev.mailbox.sink import Received, Sink
from service.dev.mailbox.store import Store
from service.dev.mailbox.web import create_app

LOOPBACK = "127.0.0.1"


class Mailbox:
    """``file`` is where mails are kept, None to forget them; ``announce`` hears of each.

    Needs nothing of the rest of the service.
    """

    def __init__(
        self,
        file: Path | None,
        *,
        smtp_port: int,
        http_port: int,
        host: str = LOOPBACK,
        announce: Callable[[Summary], None] = lambda _: None,
    ) -> None:
        self.announce = announce
        self.store = Store(file)
        self.sink = Sink(self._keep, host, smtp_port)
        # the server of the API, in this process: no second server to know
        self.server = Server(
            create_app(self.store, local=host == LOOPBACK),
            address=host,
            port=http_port,
            interface=Interfaces.ASGI,
            websockets=False,
            log_enabled=False,
            http1_settings=HTTP1Settings(keep_alive=False),  # an idle browser must not delay the end
        )
        self.serving: asyncio.Task[None] | None = None
        self.host = host
        self.http_port = http_port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    async def start(self) -> None:
        """Raises OSError when a port is taken."""
        await self.sink.start()
        self.serving = asyncio.create_task(self.server.serve(), name="mailbox")

    async def stop(self) -> None:
        await self.sink.stop()
        if self.serving is not None:
            self.server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait([self.serving], timeout=2)
        self.store.close()

    async def _keep(self, received: Received) -> str:
        mail = await asyncio.to_thread(self.store.add, received)
        self.announce(mail)
        return mail.id
