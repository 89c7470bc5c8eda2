"""Whose rows a connection may see: the two roles of the database, and the tenants that a transaction acts for.

Row-level security lets `callboard_api` see and write only rows of the tenants in the setting `app.tenants`, which
holds for one transaction; without it there are no rows. `callboard_worker` (workers, the sweeper, the command line)
serves every tenant. `service.isolation` is what migrations put it up with.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from workers.context import correlation
from workers.ledger.statement import ACT, TENANTS

Role = Literal["callboard_api", "callboard_worker"]

API: Role = "callboard_api"
WORKER: Role = "callboard_worker"

NOBODY = "{}"

_acting: ContextVar[frozenset[UUID] | None] = ContextVar("acting", default=None)


def array(tenants: Iterable[UUID | None]) -> str:
    """Write tenants as `app.tenants` holds them: a uuid[] literal."""
    return "{" + ",".join(sorted(map(str, {tenant for tenant in tenants if tenant is not None}))) + "}"


@contextlib.contextmanager
def acting_for(*tenants: UUID) -> Iterator[None]:
    """Inside, transactions that begin on the API's engine see the rows of `tenants` instead of the caller's."""
    mark = _acting.set(frozenset(tenants))
    try:
        yield
    finally:
        _acting.reset(mark)


def confine(engine: AsyncEngine) -> None:
    """Have every transaction of `engine` act for the tenant of the request that it serves, or for `acting_for`'s.

    A statement sent past SQLAlchemy begins no transaction and acts for nobody: `workers.ledger.statement.fetch` makes
    one for it; the accept path sets `app.tenants` in its statement.
    """
    event.listen(engine.sync_engine, "begin", _act)
    engine.sync_engine.update_execution_options(**{TENANTS: whose})


def whose() -> str:
    """The tenants that are acted for here and now, as `app.tenants` holds them."""
    tenants = _acting.get()
    return array((correlation.get().tenant_id,) if tenants is None else tenants)


def _act(connection: Connection) -> None:
    if (tenants := whose()) != NOBODY:
        connection.exec_driver_sql(ACT, (tenants,))
