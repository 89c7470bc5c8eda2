"""What the webhooks slice keeps for each process: where calls may go, what makes them, what opens secrets."""

from uuid import UUID

from callboard_workers.runtime import Runtime
from service.core.encryption import Sealer
from service.egress import Caller, Guard
from service.settings import Settings

KEY = "webhooks"


class Postroom:
    """What webhooks work with on one loop."""

    def __init__(self, settings: Settings) -> None:
        self.guard = Guard.of(settings)
        self.caller = Caller(self.guard)
        self.sealer = Sealer.of(settings)

    @classmethod
    def of(cls, runtime: Runtime) -> "Postroom":
        """The postroom of a runtime, closed with it."""
        found: Postroom | None = runtime.state.get(KEY)
        if found is None:
            found = runtime.state[KEY] = cls(runtime.state["settings"])
            runtime.resources.push_async_callback(found.caller.close)
        return found

    def seal(self, secret: str, endpoint: UUID) -> bytes:
        """Seal a secret for its endpoint. Raises CannotSeal."""
        return self.sealer.seal(secret.encode(), endpoint.bytes)

    def open(self, sealed: bytes, endpoint: UUID) -> str:
        """Open the secret of an endpoint. Raises CannotOpen."""
        return self.sealer.open(sealed, endpoint.bytes).decode()
