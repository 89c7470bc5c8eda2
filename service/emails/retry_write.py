"""Stores what must be stored beside a mail that is out, or refused, already: it tries until Postgres answers."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from callboard_workers.ledger.database import unanswered
from service.db.engine import cause

log = structlog.get_logger("service.emails")

PAUSE = 1.0  # seconds between two tries to reach Postgres


async def insist(store: Callable[[], Awaitable[None]], event: str, email_id: UUID) -> None:
    """Call `store` until Postgres answers; storing twice must store once. `event` is logged for each time it did not.

    The attempt's own time limit bounds it. Raises what Postgres answers.
    """
    while True:
        try:
            return await store()
        except Exception as error:
            if not _unanswered(error):
                raise
            log.warning(event, email_id=str(email_id), error=type(error).__name__)
        await asyncio.sleep(PAUSE)


def _unanswered(error: Exception) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return unanswered(cause(error))
