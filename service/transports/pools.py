"""The tenants' own mail servers, as one worker reaches them: a small pool and a breaker for each, behind the guard.

What one tenant's server does to its mail is that tenant's: at most POOL_SIZE connections and WAITING mails of it hold
a slot of the worker, and all servers of one tenant one slot in SHARE; the others come back later, and after five
failures nobody knocks for a while.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.ledger.database import fetch
from service.core.encryption import Sealer
from service.domains.dkim_signer import SENDER_DOMAIN
from service.egress.resolver import Guard
from service.egress.urls import AddressRefused
from service.settings import Settings
from service.smtp import Backoff, Kind, Phase, SmtpError, Timeouts, Transport
from service.smtp.pool import Bounds

log = structlog.get_logger("service.emails")

PORTS = (25, 465, 587, 2465, 2525, 2587)
"""Where mail is handed in; other ports only with OUTBOUND_PRIVATE."""
WAITING = 50
SHARE = 4
MOST_KEPT = 200
GRACE = 5.0  # seconds that mails under way have when a server is forgotten

RELAY = f"""
SELECT t.id FROM transports t
WHERE t.tenant_id = e.tenant_id AND (t.domains = '{{}}' OR {SENDER_DOMAIN} = ANY(t.domains))
ORDER BY t.domains = '{{}}', t.id DESC LIMIT 1
"""  # noqa: S608 (our own SQL)
"""The transport that a mail `e` leaves by, or null for the house's. SQL."""
FIND = "SELECT host, port, tls, verify, username, password, pool_size FROM transports WHERE id = $1"


def about(id: UUID) -> bytes:
    """What a sealed password is sealed for: its transport, and no other."""
    return b"transports.password:" + id.bytes


class Relays:
    """The transports that this process has opened. A row never changes: another server is another row."""

    def __init__(
        self, engine: AsyncEngine, sealer: Sealer, guard: Guard, timeouts: Timeouts | None = None, *, slots: int = 500
    ) -> None:
        self._most = max(2, slots // SHARE)
        self._sending: Counter[Hashable] = Counter()
        self._engine, self._sealer, self._guard, self._timeouts = engine, sealer, guard, timeouts
        self._open: OrderedDict[UUID, Transport] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, engine: AsyncEngine, settings: Settings, timeouts: Timeouts | None = None) -> "Relays":
        """Make what the settings describe."""
        return cls(engine, Sealer.of(settings), guard_of(settings), timeouts, slots=settings.worker_concurrency)

    async def find(self, id: UUID) -> Transport | None:
        """Return a tenant's transport, opened if it is new here; None where it was deleted just now.

        Raises CannotOpen where its password was sealed with another ENCRYPTION_KEYS than ours.
        """
        if (known := self._open.get(id)) is not None:
            self._open.move_to_end(id)
            return known
        rows = await fetch(self._engine, FIND, id)
        if not rows:
            return None
        if (known := self._open.get(id)) is not None:  # another mail was quicker
            return known
        row = rows[0]
        password = None if row["password"] is None else self._sealer.open(bytes(row["password"]), about(id)).decode()
        made = self._open[id] = Transport(
            row["host"],
            row["port"],
            username=row["username"],
            password=password,
            tls=row["tls"],
            verify=row["verify"],
            timeouts=self._timeouts,
            plaintext_auth=self._guard.private,
            bounds=Bounds(size=row["pool_size"], waiting=WAITING),
            resolve=self.resolve,
        )
        self._make_room()
        return made

    @contextmanager
    def share(self, tenant: Hashable) -> Iterator[None]:
        """Hold one of the slots that a tenant's emails to its own servers may take together.

        Raises SmtpError (temporary, `pool_full`).
        """
        if self._sending[tenant] >= self._most:
            text = f"{self._most} emails of this tenant already wait for its own servers"
            raise SmtpError(Phase.CONNECT, None, text, Kind.TEMPORARY, reason="pool_full", backoff=Backoff.SHORT)
        self._sending[tenant] += 1
        try:
            yield
        finally:
            self._sending[tenant] -= 1
            if not self._sending[tenant]:
                del self._sending[tenant]

    async def resolve(self, host: str, port: int) -> list[str]:
        """Find where a connection may go. Raises SmtpError where that is inside, OSError where it is unknown."""
        try:
            return await self._guard.resolve(host, port)
        except AddressRefused as error:
            raise SmtpError(
                Phase.CONNECT, None, str(error), Kind.TEMPORARY, reason="address_refused", backoff=Backoff.OPERATOR
            ) from error

    async def close(self) -> None:
        """Finish what is under way everywhere."""
        await asyncio.gather(*(transport.close() for transport in self._open.values()), *self._closing)
        self._open.clear()
        self._guard.close()

    def _make_room(self) -> None:
        if len(self._open) > MOST_KEPT:
            _, oldest = self._open.popitem(last=False)
            task = asyncio.get_running_loop().create_task(oldest.close(GRACE))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def guard_of(settings: Settings) -> Guard:
    """Make the guard for mail servers: as for every call to an address that somebody else chose, but mail's ports."""
    return Guard(private=settings.outbound_private, ports=frozenset(PORTS))
