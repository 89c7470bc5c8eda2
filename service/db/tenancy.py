"""Whose rows a connection may see: the two roles of the database, and the tenants that a transaction acts for.

Row-level security lets `callboard_api` see and write only rows of the tenants in the setting `app.tenants`, which
holds for one transaction; without it there are no rows. `callboard_worker` (workers, the sweeper, the command line)
serves every tenant. `service.db.row_security` is what migrations put it up with.

A tenant's live and test data have different tenant ids, so whatever keeps tenants apart (policies, WHERE clauses,
unique keys, caches) keeps the two modes apart as well.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.context import correlation
from callboard_workers.ledger.database import ACT, TENANTS

Role = Literal["callboard_api", "callboard_worker"]

Mode = Literal["live", "test"]

API: Role = "callboard_api"
WORKER: Role = "callboard_worker"

NOBODY = "{}"
TEST = 8
"""The version digit of a test id, which RFC 9562 leaves to applications. `tenants.test_id` is made alike."""

_VERSION_BIT = 76
_acting: ContextVar[frozenset[UUID] | None] = ContextVar("acting", default=None)


def id_in_test_mode(tenant_id: UUID) -> UUID:
    """Return the id under which a tenant's test mode stores its rows: `tenants.test_id`."""
    return UUID(int=tenant_id.int & ~(0xF << _VERSION_BIT) | TEST << _VERSION_BIT)


def mode_of(tenant_id: UUID | None) -> Mode:
    """Return the mode of what is stored under `tenant_id`; without a tenant, live."""
    return "test" if tenant_id is not None and tenant_id.int >> _VERSION_BIT & 0xF == TEST else "live"


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

    A statement that bypasses SQLAlchemy begins no transaction and acts for no tenant: `ledger.database.fetch` begins
    one for it, and the accept path sets `app.tenants` in its own statement.
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
