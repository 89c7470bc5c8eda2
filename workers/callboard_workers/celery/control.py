"""Remote control where Celery's own does not reach: rows, and what our consumer keeps in Redis."""

from __future__ import annotations

import datetime as dt
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from celery.worker.control import Panel, control_command, inspect_command, ok
from celery.worker.control import revoke as stock_revoke
from celery.worker.control import scheduled as stock_scheduled
from celery.worker.control import time_limit as stock_time_limit
from kombu.utils.functional import maybe_list

from callboard_workers.redis.decode import Poison, moment, read, read_body
from callboard_workers.redis.scripts import REVIVE

if TYPE_CHECKING:
    from callboard_workers.celery.task_consumer import Front
    from callboard_workers.redis.decode import Received

PAGE = 50
"""Dead letters that are read in one round trip."""
LISTED = 200
"""Entries a listing shows at most."""
SHOWN = 64_000
"""Bytes of a message whose arguments a listing shows in full."""
TIMER_PRIORITY = 6
"""What Celery's timer says of every message that it keeps."""


def _front(state: Any) -> Front | None:
    return getattr(state.consumer.pool, "front", None)


def scheduled(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """List of currently scheduled ETA/countdown tasks."""
    listed: list[dict[str, Any]] = stock_scheduled(state, **kwargs)
    if (front := _front(state)) is not None:
        found: Any = front.redis.zrange(front.keys.delayed, 0, LISTED - 1, withscores=True)
        listed += [_delayed(front, state.hostname, member, score) for member, score in found]
    return listed


def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> Any:
    """Revoke task by task id (or list of ids)."""
    answer = stock_revoke(state, task_id, terminate=terminate, signal=signal, **kwargs)
    if (revoker := getattr(state.consumer.pool, "revoker", None)) is not None:
        revoker.revoke(map(str, maybe_list(task_id) or ()), terminate=bool(terminate))
    return answer


def terminate(state: Any, signal: Any, task_id: Any, **kwargs: Any) -> Any:
    """Terminate task by task id (or list of ids)."""
    return revoke(state, task_id, terminate=True, signal=signal)


def time_limit(state: Any, task_name: Any = None, hard: Any = None, soft: Any = None, **kwargs: Any) -> Any:
    """Tell worker(s) to modify the time limit for task by type."""
    answer = stock_time_limit(state, task_name, hard=hard, soft=soft, **kwargs)
    state.consumer.update_strategies()  # they have read the limits already
    return answer


Panel.data["time_limit"] = time_limit
Panel.data["scheduled"] = Panel.data["dump_schedule"] = scheduled
Panel.data["revoke"] = revoke
Panel.data["terminate"] = terminate


@inspect_command(args=[("limit", int)], signature="[N=20]", default_timeout=3.0)
def dead(state: Any, limit: int = 20, **_: Any) -> Any:
    """List the newest dead letters of messages without a row, with their reasons; then those that nobody signed."""
    if (front := _front(state)) is None:
        return []
    wanted, redis, keys = min(int(limit), LISTED), front.redis, front.keys
    letters: Any = redis.lrange(keys.dead, 0, wanted - 1)
    if len(letters) < wanted:
        letters += redis.lrange(keys.forged, 0, wanted - len(letters) - 1)
    return [_letter(front, letter) for letter in letters]


@control_command(args=[("limit", int)], signature="[N=100]", default_timeout=3.0)
def requeue_dead(state: Any, limit: int = 100, **_: Any) -> Any:
    """Put the oldest dead letters back on their queues; send it to one worker (`-d`)."""
    if (front := _front(state)) is None:
        return ok("nothing to put back")
    redis: Any = front.redis
    wanted, count = _oldest(redis, front.keys.dead, int(limit)), 0
    while wanted and (letter := redis.lindex(front.keys.dead, -1)) is not None:
        if (digest := sha256(letter).digest()) not in wanted:
            break  # it failed meanwhile, perhaps once more
        wanted.discard(digest)
        found = msgspec.msgpack.decode(letter)
        count += redis.eval(REVIVE.text, 2, front.keys.dead, found["key"], letter, found["envelope"])
    return ok(f"{count} put back")


def _oldest(redis: Any, dead: str, limit: int) -> set[bytes]:
    """Digests of the letters that are there now, at most `limit`: what fails meanwhile is not put back with them."""
    found: set[bytes] = set()
    for start in range(0, limit, PAGE):
        page = redis.lrange(dead, -min(start + PAGE, limit), -start - 1)
        found.update(sha256(letter).digest() for letter in page)
        if len(page) < PAGE:
            break
    return found


def _delayed(front: Front, hostname: str, member: bytes, due: float) -> dict[str, Any]:
    """A delayed message in the shape of `celery.worker.request.Request.info`."""
    key, _, envelope = member.partition(b"\n")
    at = dt.datetime.fromtimestamp(due / 1000, dt.UTC)
    summary = _summary(envelope)
    summary.pop("retries", None)
    try:
        received = read(envelope)
        at = moment(received.headers.get("eta")) or at
        summary |= _arguments(received, len(envelope))
        info = received.properties.get("delivery_info")
        exchange = info.get("exchange") if isinstance(info, dict) else None
        delivery = {"priority": received.properties.get("priority"), "redelivered": received.redelivered}
    except Poison:
        exchange, delivery = None, {}
    request = {
        **summary,
        "hostname": hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {"exchange": exchange, "routing_key": front.keys.queue_of(key.decode()), **delivery},
        "worker_pid": None,
    }
    return {"eta": at.isoformat(), "priority": TIMER_PRIORITY, "request": request}


def _arguments(received: Received, size: int) -> dict[str, Any]:
    """The arguments, or of a large message their short form, as its sender wrote it."""
    headers = received.headers
    if size > SHOWN:
        return {"args": headers.get("argsrepr"), "kwargs": headers.get("kwargsrepr")}
    args, kwargs, _ = read_body(received)
    return {"args": args, "kwargs": kwargs}


def _letter(front: Front, letter: bytes) -> dict[str, Any]:
    found = msgspec.msgpack.decode(letter)
    at = dt.datetime.fromtimestamp(found["at"], dt.UTC).isoformat()
    queue = front.keys.queue_of(found["key"])
    return {"reason": found["reason"], "at": at, "queue": queue, **_summary(found["envelope"])}


def _summary(envelope: bytes) -> dict[str, Any]:
    try:
        received = read(envelope)
    except Poison as poison:
        return {"id": None, "name": None, "unreadable": str(poison)[:200]}
    return {"id": received.id, "name": received.name, "type": received.name, "retries": received.headers.get("retries")}
