"""A message that was not started in time is not run at all."""

from __future__ import annotations

import datetime as dt

from callboard_workers.context import Context
from callboard_workers.middleware.base import Execute, Middleware
from callboard_workers.policy import Expired, Outcome


class Expiry(Middleware):
    """Expires messages without a row by this machine's clock; the ledger's claim has already asked Postgres' clock."""

    async def execute(self, context: Context, next: Execute) -> Outcome:
        moment = context.expires_at
        if moment is not None and not context.durable and moment <= dt.datetime.now(dt.UTC):
            return Expired(reason=f"not started by {moment.isoformat()}")
        return await next(context)
