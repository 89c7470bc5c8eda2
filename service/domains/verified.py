"""Which domains a tenant has verified, as the accept path asks: at most a second old."""

import time
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.runtime import Runtime

FRESH = 1.0  # seconds after which a process sees that a domain was verified
MOST_KEPT = 10_000

VERIFIED = text("SELECT domain FROM senders WHERE tenant_id = :tenant_id AND verified_at IS NOT NULL")


class Domains:
    """The verified domains of every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[UUID, tuple[float, frozenset[str]]] = {}

    @classmethod
    def of_runtime(cls, runtime: Runtime) -> "Domains":
        """Return the verified domains as this process knows them."""
        return runtime.resource("verified_domains", lambda: cls(runtime.require_engine()))

    async def of(self, tenant_id: UUID) -> frozenset[str]:
        """Return the verified domains of a tenant."""
        known = self._known.get(tenant_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        async with self._engine.connect() as connection:
            found = frozenset((await connection.execute(VERIFIED, {"tenant_id": tenant_id})).scalars())
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[tenant_id] = time.monotonic() + FRESH, found
        return found

    def forget(self, tenant_id: UUID) -> None:
        """Look again: this process just changed it."""
        self._known.pop(tenant_id, None)
