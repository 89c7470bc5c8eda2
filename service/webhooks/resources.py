"""What the webhooks slice keeps for each process: where calls may go, what makes them, what opens secrets."""

from uuid import UUID

from callboard_workers.runtime import Runtime
from service.core.encryption import Sealer
from service.egress import Caller, Guard
from service.settings import Settings


class Postroom:
    """What webhooks work with on one loop."""

    def __init__(self, settings: Settings) -> None:
        self.guard = Guard.of(settings)
        self.caller = Caller(self.guard)
        self.sealer = Sealer.of(settings)

    @classmethod
    def of(cls, runtime: Runtime) -> "Postroom":
        """The postroom of a runtime, closed with it."""
        return runtime.resource("webhooks", lambda: cls(runtime.state["settings"]), cls.close)

    async def close(self) -> None:
        """Close the connections to endpoints."""
        await self.caller.close()

    def seal(self, secret: str, endpoint: UUID) -> bytes:
        """Seal a secret for its endpoint. Raises CannotSeal."""
        return self.sealer.seal(secret.encode(), endpoint.bytes)

    def open(self, sealed: bytes, endpoint: UUID) -> str:
        """Open the secret of an endpoint. Raises CannotOpen."""
        return self.sealer.open(sealed, endpoint.bytes).decode()
