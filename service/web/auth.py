"""Who calls, and what they may do."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.plugins.base import ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types import Guard

from callboard_workers.context import correlation
from service.core.errors import Forbidden, TooManyRequests, Unauthenticated
from service.web.limits import Caller, Limiter

Connection = ASGIConnection[Any, Any, Any, Any]

SCOPES = "scopes"
ALLOW = "allow"


class Principal(msgspec.Struct, frozen=True):
    """The tenant and key behind a request. A `test` key's mail never leaves the machine.

    `tenant` and `key` are the ids as logs write them.
    """

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    mode: Literal["live", "test"]
    tenant: str = ""
    key: str = ""

    @property
    def operates(self) -> bool:
        """Whether the key is an operator's, which sees counts of every tenant. Only `admin` implies it."""
        return "operator" in self.scopes or self.administers

    @property
    def administers(self) -> bool:
        """Whether the key may act for every tenant in the console. No other scope implies it."""
        return "admin" in self.scopes

    def may(self, scope: str) -> bool:
        """Tell whether the key has `scope`, such as `emails:send`; `emails:*` covers it, and so does `*`."""
        return scope in self.scopes or "*" in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes


class Watched(Protocol):
    """A key that is watched while a stream is open."""

    over: bool


class Keyring(Protocol):
    """Finds the principal of a key; `app.state.keyring` is one."""

    async def find(self, key: str) -> Principal | None:
        """Return the key's principal, or None for a key that is unknown, expired or revoked."""
        ...

    async def is_good(self, key_id: UUID) -> bool:
        """Report whether a key is neither revoked nor expired."""
        ...

    def watch(self, key_id: UUID, end: Callable[[], None] | None = None) -> AbstractContextManager[Watched]:
        """Watch the key of an open stream: within seconds after it is revoked, `over` is set and `end` is called."""
        ...


def require(*scopes: str) -> Guard:
    """Make a route's guard: a good API key that has every one of `scopes`.

    Raises Unauthenticated (401) without one, Forbidden (403) where a scope is missing.
    """

    async def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        await authorize(connection, scopes)

    guard.scopes = scopes  # type: ignore[attr-defined]  # Doorman and the schema read it
    return guard


async def authorize(connection: Connection, scopes: Sequence[str]) -> None:
    """Let pass a caller with a good key that has every one of `scopes` and requests left of its rate.

    Raises Unauthenticated, Forbidden, TooManyRequests.
    """
    caller = await authenticate(connection)
    limiter: Limiter | None = connection.app.state.get("limiter")
    if limiter is not None:
        await _count(connection, limiter, caller)
    if missing := [scope for scope in scopes if not caller.may(scope)]:
        raise Forbidden(
            f"The key lacks {', '.join(missing)}; make one with `callboard keys create --scope {missing[0]}`.",
            code="scope-missing",
        )


async def _count(connection: Connection, limiter: Limiter, caller: Principal) -> None:
    verdict = await limiter.check(Caller(caller.tenant_id, caller.key_id, caller.mode))
    connection.scope["limits"] = verdict.fields  # type: ignore[typeddict-unknown-key]  # the edge adds them
    if not verdict.allowed:
        raise TooManyRequests(
            f"{verdict.spent} are used up; try again after `Retry-After` seconds.", retry_after=verdict.retry_after
        )


async def admit(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Authorize a request of a route that Doorman looked at, and answer OPTIONS; the application's `before_request`."""
    options = request.route_handler.opt
    if (allow := options.get(ALLOW)) is not None:
        return Response(None, status_code=204, headers={"Allow": allow})
    if (scopes := options.get(SCOPES)) is not None:
        await authorize(request, scopes)
    return None


class Doorman(ReceiveRoutePlugin):
    """Moves what `require` asks for from a route's guards to its options, where `admit` finds it.

    Litestar copies the whole route handler for every call of a guard, which costs more than the key's look-up. A route
    whose `before_request` is not `admit` keeps its guards. It also notes what OPTIONS answers: Litestar's own answer
    names only the methods that were registered first where a path is registered in parts.
    """

    def receive_route(self, route: BaseRoute) -> None:
        """Look at a route as it is registered."""
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else []:
            if handler.http_methods == {"OPTIONS"}:
                handler.opt[ALLOW] = ", ".join(sorted(route.methods))
            guards = handler.resolve_guards()
            wanted = [guard for guard in guards if hasattr(guard, "scopes")]
            if wanted and handler.resolve_before_request() is admit:
                handler.opt[SCOPES] = tuple(dict.fromkeys(name for guard in wanted for name in guard.scopes))
                guards[:] = [guard for guard in guards if guard not in wanted]


def plain_header(connection: Connection, name: bytes) -> str:
    """Read a header that may be there once, decoded as Latin-1; empty without it. `name` is in lower case."""
    headers: dict[bytes, bytes] = connection.scope["plain_headers"]  # type: ignore[typeddict-item]  # the edge's
    return headers.get(name, b"").decode("latin-1")


async def authenticate(connection: Connection) -> Principal:
    """Find who calls, once per request, and bind the tenant to its logs and messages. Raises Unauthenticated."""
    known: Principal | None = connection.scope.get("user")
    if known is not None:
        return known
    scheme, _, key = plain_header(connection, b"authorization").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("Send `Authorization: Bearer cb_live_…`; make a key with `callboard keys create`.")
    keyring: Keyring = connection.app.state.keyring
    caller = await keyring.find(key.strip())
    if caller is None:
        raise Unauthenticated("The key is unknown, expired or revoked.", code="key-refused")
    connection.scope["user"] = caller
    correlation.set(msgspec.structs.replace(correlation.get(), tenant_id=caller.tenant_id))
    return caller
