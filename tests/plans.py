"""What statements touch in Postgres: pages, counted by EXPLAIN."""

from typing import Any


async def explain(raw: Any, sql: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The plan of a statement that has run, with what it touched; nothing of what it did stays."""
    outer = raw.transaction()
    await outer.start()
    try:
        answer = await raw.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
    finally:
        await outer.rollback()
    found: dict[str, Any] = answer[0]["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes."""
    return [plan, *(each for below in plan.get("Plans", ()) for each in nodes(below))]


def touched(plan: dict[str, Any]) -> int:
    """Pages that were looked at, wherever they lay."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
