"""Reading what was fetched: from bytes that may hold anything to a message that can be run."""

from __future__ import annotations

import datetime as dt
import time
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import kombu.utils.json
import msgspec

from callboard_workers.message import FURTHEST
from callboard_workers.redis.protocol import DOORBELL_BODY

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ID = 255
"""Characters of a task id; a longer one is an attack or an accident."""
YEAR = 365 * 86_400
NO_LIMITS = [None, None]
_decode = msgspec.json.Decoder().decode
_decode_body = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], dict[str, Any]]).decode


class Poison(Exception):
    """A message nobody can run; says why."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message as far as the consumer must understand it."""

    id: str
    name: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    payload: dict[str, Any]
    """The whole envelope, for Celery's own machinery."""

    @property
    def redelivered(self) -> bool:
        """Whether a worker has had it before."""
        info = self.properties.get("delivery_info")
        return bool(self.headers.get("redelivered") or (isinstance(info, dict) and info.get("redelivered")))


def read(envelope: bytes) -> Received:
    """The outer part of a message; raises Poison when there is no task to be found in it."""
    try:
        payload = _decode(envelope)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Poison(f"not JSON: {error}") from error
    if not isinstance(payload, dict):
        raise Poison("not an object")
    headers, properties = payload.get("headers"), payload.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise Poison("headers and properties must be objects")
    if not isinstance(payload.get("body"), str):
        raise Poison("the body must be text")
    id_, name = headers.get("id"), headers.get("task")
    if not isinstance(name, str) or not name:
        raise Poison("headers.task must name a task")
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID:
        raise Poison(f"headers.id must be a text of 1 to {MAX_ID} characters")
    check_headers(headers)
    return Received(id_, name, headers, properties, payload)


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raises Poison for headers that Celery's request would trip over."""
    retries = headers.get("retries")
    if retries is not None and (type(retries) is not int or not 0 <= retries < 2**31):
        raise Poison("headers.retries must be a small whole number")
    if (eta := headers.get("eta")) is not None:
        _check_time("eta", eta)
    if (expires := headers.get("expires")) is not None:
        _check_time("expires", expires)
    limits = headers.get("timelimit")
    if limits is not None and limits != NO_LIMITS and not _are_limits(limits):
        raise Poison("headers.timelimit must be two numbers or nulls")


def _check_time(name: str, value: object) -> None:
    found = moment(value)
    if found is None:
        raise Poison(f"headers.{name} must be a date and time (ISO 8601), not {str(value)[:80]!r}")
    if found.timestamp() - time.time() > FURTHEST:
        raise Poison(
            f"headers.{name} is {found.date()}: more than {FURTHEST // YEAR} years ahead is taken for a mistake"
        )


def _are_limits(limits: object) -> bool:
    return isinstance(limits, list) and len(limits) == 2 and all(map(_is_limit, limits))


def read_body(received: Received) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The arguments and the embedded canvas parts of a JSON body; raises Poison when they are malformed."""
    payload = received.payload
    if payload.get("content-type") != "application/json":
        raise Poison(f"content type {payload.get('content-type')!r} is not accepted, only application/json")
    encoding = payload.get("content-encoding")
    if encoding != "utf-8" and str(encoding).lower() not in ("utf-8", "binary"):
        raise Poison(f"content encoding {encoding!r} is not accepted, only utf-8")
    text = payload["body"]
    if text == DOORBELL_BODY:
        return [], {}, {}
    try:
        body = b64decode(text, validate=True) if received.properties.get("body_encoding") == "base64" else text.encode()
        if b'"__type__"' in body:
            args, kwargs, embed = kombu.utils.json.loads(body)  # type: ignore[no-untyped-call]
        else:
            args, kwargs, embed = _decode_body(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise Poison(f"the body cannot be read: {error}") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(embed or {}, dict):
        raise Poison("the body must be [args, kwargs, embed]: a list, an object, an object")
    return args, kwargs, embed or {}


def is_plain(headers: Mapping[str, Any], embed: Mapping[str, Any]) -> bool:
    """Whether a message needs nothing of Celery's tracer: no canvas, no limits of its own."""
    if headers.get("group") or headers.get("shadow") or headers.get("stamped_headers"):
        return False
    limits = headers.get("timelimit")
    return (limits is None or limits == NO_LIMITS) and not any(embed.values())


def moment(value: object) -> dt.datetime | None:
    """A header's time, aware; None when it is none or cannot be reached."""
    if not isinstance(value, str):
        return None
    try:
        found = dt.datetime.fromisoformat(value)
        found = found if found.tzinfo else found.replace(tzinfo=dt.UTC)
        found.timestamp()
    except (ValueError, OverflowError):
        return None
    return found


def _is_limit(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**9)
