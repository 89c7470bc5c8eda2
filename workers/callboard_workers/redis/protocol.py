"""Celery's message protocol 2 in the envelope of kombu's Redis transport: values in, bytes out.

Sources: `celery.app.amqp.AMQP.as_task_v2`, `kombu.transport.virtual.Channel._inplace_augment_message`,
`kombu.transport.redis.Channel._put` and `_queue_bind`, `kombu.utils.json`.
"""

from __future__ import annotations

import os
import re
import socket
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from uuid_utils import uuid4 as new_tag
from uuid_utils.compat import uuid4

from callboard_workers.redis.signing import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from callboard_workers.message import Message
    from callboard_workers.redis.signing import Signer

SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and its priority, and between the parts of a binding."""

PRIORITY_STEPS = (0, 3, 6, 9)
"""The priorities that have a Redis list of their own; 0 is served first and has no suffix."""

HIDDEN = "…"
"""Shown instead of arguments in `inspect`, Flower and logs: they may hold what must not be read there."""

DOORBELL_BODY = b64encode(b'[[],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]').decode()
"""The body of every doorbell: no arguments, no canvas."""

DOORBELL = DOORBELL_BODY.encode()

_EMBED: dict[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_encode = msgspec.json.Encoder().encode
_TAGS: tuple[tuple[type, str, Callable[[Any], object]], ...] = (
    (UUID, "uuid", lambda value: {"hex": value.hex}),
    (datetime, "datetime", datetime.isoformat),  # before date: a datetime is one
    (date, "date", date.isoformat),
    (time, "time", time.isoformat),
    (Decimal, "decimal", str),
    (bytes, "base64", lambda value: b64encode(value).decode()),
)


def list_key(queue: str, priority: int, prefix: str = "") -> str:
    """The Redis list that holds the messages of a queue at a priority (a number from 0 to 9)."""
    step = max(step for step in PRIORITY_STEPS if step <= priority)
    return f"{prefix}{queue}{SEPARATOR}{step}" if step else f"{prefix}{queue}"


@lru_cache(maxsize=1024)
def list_keys(queue: str, prefix: str = "") -> tuple[str, ...]:
    """Every Redis list of a queue, the one served first coming first."""
    return tuple(list_key(queue, step, prefix) for step in PRIORITY_STEPS)


def sorted_key(prefix: str = "") -> str:
    """The Redis hash that says of a list how many of its doorbells were moved to lists of their tenants."""
    return f"{prefix}workers:sorted"


def bindings(queue: str, prefix: str = "") -> tuple[tuple[str, str], ...]:
    """The (set, member) pairs by which stock tools find a queue of a direct exchange."""
    member = f"{queue}{SEPARATOR}{SEPARATOR}{queue}"
    return (f"{prefix}_kombu.binding.{queue}", member), (f"{prefix}_kombu.binding_permanent.{queue}", member)


def encode(
    message: Message, *, durable: bool = False, now: datetime | None = None, signer: Signer | None = None
) -> bytes:
    """One message as the bytes Celery would have pushed.

    A durable message becomes a doorbell: its id and nothing of its content, because the row holds the truth.
    A direct one carries its arguments and its times (`eta`, `expires`: absolute, UTC), signed where there is a signer.
    Raises TypeError when an argument has no JSON form that Celery reads back.
    """
    id_ = str(message.id)
    timed = not durable and (message.due_at is not None or message.delay or message.expires is not None)
    if not timed and (durable or signer is None) and _OWN.isdisjoint(message.headers):
        return _filled(message, id_, durable=durable)
    headers = _headers(message, id_, durable=durable)
    properties = _properties(message.queue, message.priority.number, id_, str(uuid4()))
    if durable:
        body = DOORBELL_BODY
    else:
        _set_times(headers, properties, message, now or datetime.now(UTC))
        raw = _body(message.args, message.kwargs)
        if signer is not None:
            headers[HEADER] = signer.sign(headers, raw)
        body = b64encode(raw).decode()
    return envelope(body, headers, properties)


def envelope(body: str, headers: Mapping[str, object], properties: Mapping[str, object]) -> bytes:
    """kombu's outer object around a body that is already base64."""
    return _encode(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    )


def _filled(message: Message, id_: str, *, durable: bool) -> bytes:
    """What `envelope` makes of a message without times: only what differs is written anew, the rest once."""
    own: dict[str, object] = dict(message.headers)
    if message.tenant_id is not None:
        own["tenant_id"] = str(message.tenant_id)
    if durable:
        own["durable"] = True
    more = b"," + _encode(own)[1:-1] if own else b""
    empty = durable or not (message.args or message.kwargs)
    body = DOORBELL if empty else b64encode(_body(message.args, message.kwargs))
    a, b, c, d, e, f, g = _template(message.actor, message.queue, message.priority.number, origin())
    id = id_.encode()
    return b"".join((a, body, b, id, c, id, d, more, e, id, f, str(new_tag()).encode(), g))


@lru_cache(maxsize=1024)
def _template(actor: str, queue: str, priority: int, sender: str) -> list[bytes]:
    """The pieces between body, id, root id, further headers, correlation id and tag."""
    body, id_, more, tag = (str(uuid4()) for _ in range(4))
    headers = _standing(actor, id_, sender) | {more: None}
    whole = envelope(body, headers, _properties(queue, priority, id_, tag))
    gaps = (body, id_, f',"{more}":null', tag)
    return re.split(b"|".join(re.escape(gap.encode()) for gap in gaps), whole)


def _properties(queue: str, priority: int, id_: str, tag: str) -> dict[str, object]:
    return {
        "correlation_id": id_,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": priority,
        "body_encoding": "base64",
        "delivery_tag": tag,
    }


def encode_body(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """Arguments as protocol 2 writes them: base64 of `[args, kwargs, embed]`."""
    return b64encode(_body(args, kwargs)).decode()


def _body(args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    return _encode([tagged(list(args)), tagged(dict(kwargs)), _EMBED])


def tagged(value: object) -> object:
    """A value with everything JSON lacks in kombu's tagged form, so that Celery reads the same types back."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [tagged(item) for item in value]
    if isinstance(value, dict):
        return {str(key): tagged(item) for key, item in value.items()}
    for type_, tag, write in _TAGS:
        if isinstance(value, type_):
            return {"__type__": tag, "__value__": write(value)}
    raise TypeError(
        f"a message cannot carry {type(value).__qualname__}: pass an id, or a value of JSON, UUID, date, "
        "datetime, time, Decimal or bytes"
    )


@lru_cache(maxsize=1)
def origin() -> str:
    """Who publishes, as Celery's `anon_nodename` writes it."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


def _headers(message: Message, id_: str, *, durable: bool) -> dict[str, object]:
    headers = _standing(message.actor, id_, origin()) | message.headers
    if message.tenant_id is not None:
        headers["tenant_id"] = str(message.tenant_id)
    if durable:
        headers["durable"] = True
    return headers


def _standing(actor: str, id_: str, sender: str) -> dict[str, object]:
    """The headers that every message bears."""
    return {
        "lang": "py",
        "task": actor,
        "id": id_,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": id_,
        "parent_id": None,
        "argsrepr": HIDDEN,
        "kwargsrepr": HIDDEN,
        "origin": sender,
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


_OWN = frozenset((*_standing("", "", ""), HEADER))


def _set_times(headers: dict[str, object], properties: dict[str, object], message: Message, now: datetime) -> None:
    if message.due_at is not None:
        headers["eta"] = message.due_at.astimezone(UTC).isoformat()
    elif message.delay:
        headers["eta"] = (now + timedelta(seconds=message.delay)).isoformat()
    if message.expires is not None:
        headers["expires"] = (now + timedelta(seconds=message.expires)).isoformat()
        properties["expiration"] = str(int(message.expires * 1000))
