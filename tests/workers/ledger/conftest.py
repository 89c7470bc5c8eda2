"""A ledger on a real Postgres, and what it sends there."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.ledger import Ledger
from callboard_workers.ledger import database as statements


@pytest.fixture
async def ledger(engine: AsyncEngine) -> AsyncIterator[Ledger]:
    """A ledger on a fresh database."""
    made = Ledger(engine)
    yield made
    await made.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that the ledger sends, as they are sent."""
    seen: list[str] = []

    async def counting(engine: AsyncEngine, sql: str, *args: object, **kwargs: object) -> object:
        seen.append(sql)
        return await statements.fetch(engine, sql, *args, **kwargs)  # type: ignore[arg-type]

    for module in ("claims", "fences", "settles", "leases", "progress", "sweeper"):
        monkeypatch.setattr(f"callboard_workers.ledger.{module}.fetch", counting)
    return seen


@pytest.fixture
async def slow_updates(engine: AsyncEngine) -> None:
    """Make every UPDATE of a message take a while, so that what is concurrent meets."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
                " $$BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END$$"
            )
        )
        await connection.execute(
            sa.text("CREATE TRIGGER slowly BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION slowly()")
        )
