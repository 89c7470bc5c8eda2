"""Dead letters that only Redis keeps, the failed tasks of Celery clients, in the form of those that have a row."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from redis.exceptions import RedisError

from service.console.reasons import buried_reason
from service.tasks import buried
from service.tasks.buried import MAX_READ, Buried
from service.web import Request

BURIED = "buried"
"""The state that stands for Redis in the fields of a group."""
MOST_GROUPS = 50


async def kept(request: Request) -> list[Buried]:
    """Read the newest for a visitor with the scope `operator`; none without Redis, which the checks report."""
    state = request.app.state
    if not request.user.operates:
        return []
    try:
        return await buried.read(state.redis, state.settings.redis_key_prefix)
    except (RedisError, OSError):
        return []


def groups(entries: Sequence[Buried]) -> list[dict[str, Any]]:
    """Group by task and reason, the largest group first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for letter in map(_letter, entries):
        new = {**letter, "letters": 0, "latest": letter["ended_at"]}
        group = found.setdefault((letter["actor"], letter["reason"]), new)
        group["letters"] += 1
        group["latest"] = max(group["latest"], letter["ended_at"])
    return sorted(found.values(), key=lambda group: -group["letters"])[:MOST_GROUPS]


def letters(entries: Sequence[Buried], group: Mapping[str, str], before: UUID | None) -> list[dict[str, Any]]:
    """Choose those of a group, empty fields of which match all, with an id below `before`."""
    found = map(_letter, entries)
    chosen = [each for each in found if all(value in ("", each[name]) for name, value in group.items())]
    return [each for each in chosen if before is None or each["id"] < before]


def chosen(entries: Sequence[Buried], ids: Sequence[UUID], group: Mapping[str, str]) -> list[Buried]:
    """Choose the entries that a form selects: those of a group of Redis, else by their ids."""
    if group:
        return [entry for entry in entries if all(_letter(entry)[name] == value for name, value in group.items())]
    wanted = set(ids)
    return [entry for entry in entries if entry.report.id in wanted]


async def move(request: Request, entries: Sequence[Buried], *, again: bool) -> int:
    """Requeue entries, or delete them; return how many were still there. Stops where Redis does not respond."""
    state, count = request.app.state, 0
    try:
        async for _ in buried.take(state.redis, entries, state.settings.redis_key_prefix, again=again):
            count += 1
    except (RedisError, OSError):
        pass
    return count


def words(verb: str, entries: Sequence[Buried]) -> list[str]:
    """Write what a question adds about entries of Redis."""
    crashed = sum(_letter(entry)["reason"] == "Quarantined" for entry in entries)
    found = []
    if verb == "requeue" and crashed:
        found.append(f"{crashed:,} of them crashed their workers and may do so again.")
    if len(entries) == MAX_READ:
        found.append(f"This changes the newest {MAX_READ:,} of the tasks in Redis, the most at a time.")
    return found


def _letter(entry: Buried) -> dict[str, Any]:
    report = entry.report
    message = str(report.error["message"])
    return {
        "id": report.id, "actor": report.name, "state": BURIED, "attempts": report.attempts, "recipients": None,
        "subject": None, "reply": None, "error": {"message": message}, "reason": buried_reason(message),
        "ended_at": report.finished_at,
    }  # fmt: skip
