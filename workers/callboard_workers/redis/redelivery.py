"""A message that is delivered again: marked so, its crashes counted."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Again(NamedTuple):
    """A message as it is delivered next; `durable`: a doorbell, whose row counts for itself."""

    envelope: bytes
    crashes: int
    durable: bool
    task: str


def again(envelope: bytes, *, crashed: bool, doubt: bool = False) -> Again:
    """The message for its next delivery, with the crashes counted so far.

    `doubt`: its worker died and nobody knows whether it had begun; the next one to run it takes care to know. The
    other marks are kombu's (`kombu.transport.redis.Channel._do_restore_message`) and our header `crashes`. An envelope
    that cannot be read comes back as it is: whoever fetches it buries it.
    """
    try:
        payload = msgspec.json.decode(envelope)
        headers, properties = payload["headers"], payload["properties"]
        durable = headers.get("durable") is True
        crashes = _count(headers.get("crashes")) + crashed
        headers["redelivered"] = True
        if not durable:
            headers["crashes"] = crashes
            if doubt:
                headers["doubt"] = True
        info = properties.get("delivery_info")
        if isinstance(info, dict):
            info["redelivered"] = True
        return Again(msgspec.json.encode(payload), crashes, durable, str(headers.get("task")))
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, TypeError, KeyError, AttributeError):
        return Again(envelope, 0, False, "")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
