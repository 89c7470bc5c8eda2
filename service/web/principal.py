"""Who calls, and what they may do."""

from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec
import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from service.errors import Forbidden, Unauthenticated
from workers.context import correlation

Connection = ASGIConnection[Any, Any, Any, Any]


class Principal(msgspec.Struct, frozen=True):
    """The tenant and key behind a request. A `test` key's mail never leaves the machine."""

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    mode: Literal["live", "test"]

    def may(self, scope: str) -> bool:
        """Tell whether the key has `scope`, such as `emails:send`; `emails:*` covers it, and so does `*`."""
        return scope in self.scopes or "*" in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes


class Keyring(Protocol):
    """Finds the principal of a key; `app.state.keyring` is one."""

    async def find(self, key: str) -> Principal | None:
        """Return the key's principal, or None for a key that is unknown, expired or revoked."""
        ...


def require(*scopes: str) -> Guard:
    """Make a route's guard: a good API key that has every one of `scopes`.

    Raises Unauthenticated (401) without one, Forbidden (403) where a scope is missing.
    """

    async def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        caller = await authenticate(connection)
        missing = [scope for scope in scopes if not caller.may(scope)]
        if missing:
            raise Forbidden(
                f"The key lacks {', '.join(missing)}; make one with `callboard keys create --scope {missing[0]}`.",
                code="scope-missing",
            )

    guard.scopes = scopes  # type: ignore[attr-defined]  # the schema reads what a route asks for
    return guard


async def authenticate(connection: Connection) -> Principal:
    """Find who calls, once per request, and bind the tenant to its logs and messages. Raises Unauthenticated."""
    known: Principal | None = connection.scope.get("user")
    if known is not None:
        return known
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("Send `Authorization: Bearer cb_live_…`; make a key with `callboard keys create`.")
    keyring: Keyring = connection.app.state.keyring
    caller = await keyring.find(key.strip())
    if caller is None:
        raise Unauthenticated("The key is unknown, expired or revoked.", code="key-refused")
    connection.scope["user"] = caller
    correlation.set(msgspec.structs.replace(correlation.get(), tenant_id=caller.tenant_id))
    structlog.contextvars.bind_contextvars(tenant=str(caller.tenant_id))
    return caller
