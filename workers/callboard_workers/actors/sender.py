"""How an actor's messages are made and sent on their way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from callboard_workers.actors.message_settings import Extras
from callboard_workers.context import correlation
from callboard_workers.errors import DurableOnly
from callboard_workers.message import END, FURTHEST, Message, Priority
from callboard_workers.runtime import Runtime

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from callboard_workers.actors.parameters import Parameters
    from callboard_workers.policy import Policy

P = ParamSpec("P")


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """How one message differs from its actor's defaults. `delay` and `expires` are seconds from now, `at` is aware."""

    delay: float | None = None
    at: dt.datetime | None = None
    priority: Priority | None = None
    queue: str | None = None
    expires: float | None = None
    key: str | None = None
    tenant_id: UUID | None = None
    id: UUID | None = None


class Sender(Generic[P]):
    """The verbs of an actor: `message`, `send`, `enqueue`, with the function's own parameters."""

    name: str
    queue: str
    priority: Priority
    policy: Policy
    parameters: Parameters
    extras: Extras | None = None
    """What few actors declare about their messages."""
    _sending: Sending = Sending()

    def options(
        self,
        *,
        delay: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
        priority: Priority | str | None = None,
        queue: str | None = None,
        expires: float | dt.timedelta | None = None,
        key: str | None = None,
        tenant_id: UUID | None = None,
        id: UUID | None = None,
    ) -> Sender[P]:
        """The same verbs, sent otherwise: later, more urgent, elsewhere, once per key. ValueError names the faults."""
        sending = Sending(
            delay=_seconds(delay),
            at=at,
            priority=priority if priority is None or isinstance(priority, Priority) else Priority(priority),
            queue=queue,
            expires=_seconds(expires),
            key=key,
            tenant_id=tenant_id,
            id=id,
        )
        _check(self.name, sending, self.policy.expires)
        return OtherwiseSent(self, sending)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        """The message this call would be; TypeError if it does not fit the function or has no JSON form.

        It inherits the request, tenant and trace of whoever makes it. `message | other` is a pipeline.
        """
        plain_args, plain_kwargs = self.parameters.encode(args, kwargs)
        return self.made(plain_args, plain_kwargs, args, kwargs)

    def step(self, *args: Any, **kwargs: Any) -> Message:
        """A step of a pipeline, or the callback of a group: as `message`, but without its last positional argument.

        That is the result of the step before it, or the list of the group's results.
        """
        plain_args, plain_kwargs = self.parameters.encode_partly(args, kwargs)
        return self.made(plain_args, plain_kwargs, args, kwargs)

    def made(
        self, plain_args: tuple[Any, ...], plain_kwargs: dict[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Message:
        """The message of a call whose values are plain already; `args` and `kwargs` are the values as they were."""
        how, policy, origin = self._sending, self.policy, correlation.get()
        tenant_id = how.tenant_id or origin.tenant_id
        if tenant_id is not origin.tenant_id:
            origin = msgspec.structs.replace(origin, tenant_id=tenant_id)
        message = Message(
            id=how.id or uuid7(),
            actor=self.name,
            args=plain_args,
            kwargs=plain_kwargs,
            queue=how.queue or self.queue,
            priority=how.priority or self.priority,
            delay=how.delay,
            due_at=how.at,
            expires=how.expires if how.expires is not None else policy.expires,
            tenant_id=tenant_id,
            key=how.key,
            headers=origin.headers(),
            max_crashes=policy.max_crashes,
            uncertain=policy.uncertain,
        )
        return message if self.extras is None else self.extras.on(message, args, kwargs)

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        """Send through the broker alone: at least once, no row. BrokerUnavailable within the publisher's deadline.

        DurableOnly for an actor with limits, for a message with a key, and for one that is due or expires in more than
        ten years: they are kept by rows.
        """
        if self.extras is not None:
            self.extras.direct(self.name)
        if self._sending.key is not None:
            raise DurableOnly(f"{self.name}: a key is borne by a row in the ledger: use enqueue(session, …)")
        if max(_wait(self._sending), self._sending.expires or 0) > FURTHEST:
            raise DurableOnly(f"{self.name}: a broker is trusted with ten years at most: use enqueue(session, …)")
        return await Runtime.of_loop().send(self.message(*args, **kwargs))

    async def enqueue(self, where: AsyncSession | AsyncConnection, /, *args: P.args, **kwargs: P.kwargs) -> Message:
        """Write the message into the ledger, in the transaction of `where`; its doorbell rings after the commit.

        Returns the message; with a `key` that an unfinished message bears already, that one (by its id).
        """
        [message] = await Runtime.enqueue_from_loop(where, self.message(*args, **kwargs))
        return message


class OtherwiseSent(Sender[P]):
    """An actor's verbs with other options."""

    def __init__(self, origin: Sender[P], sending: Sending) -> None:
        self.name, self.queue, self.priority = origin.name, origin.queue, origin.priority
        self.policy, self.parameters, self.extras = origin.policy, origin.parameters, origin.extras
        self._sending = sending


def _seconds(value: float | dt.timedelta | None) -> float | None:
    return value.total_seconds() if isinstance(value, dt.timedelta) else value


def _check(name: str, how: Sending, usual: float | None) -> None:
    faults: list[str] = []
    if how.delay is not None and how.at is not None:
        faults.append("give either delay or at")
    seconds = how.delay is not None or how.expires is not None
    left = (END - dt.datetime.now(dt.UTC)).total_seconds() if seconds else 0.0
    if how.delay is not None and not 0 <= how.delay < left:
        faults.append(f"delay={how.delay!r} is not from 0 to {left:.0f} seconds")
    if how.at is not None and how.at.tzinfo is None:
        faults.append(f"at={how.at.isoformat()} has no time zone")
    elif how.at is not None and how.at >= END:
        faults.append(f"at={how.at.isoformat()} is not before {END:%Y-%m-%d}")
    if how.expires is not None and not 0 < how.expires < left:
        faults.append(f"expires={how.expires!r} is not a positive number of seconds up to {left:.0f}")
    expires = usual if how.expires is None else how.expires
    if expires is not None and not faults and expires <= _wait(how):
        later = f"delay={how.delay:g} s" if how.at is None else f"at={how.at.isoformat()}"
        faults.append(f"expires={expires:g} s is not after {later}: it would never run")
    if how.queue is not None or how.key is not None:
        faults.extend(_texts(queue=how.queue, key=how.key))
    if faults:
        raise ValueError(f"{name}.options: " + "; ".join(faults))


def _wait(how: Sending) -> float:
    """Seconds, more or less, until a message that is put off is due."""
    if how.at is not None:
        return (how.at - dt.datetime.now(dt.UTC)).total_seconds()
    return how.delay or 0.0


def _texts(**values: Any) -> list[str]:
    return [
        f"{name}={value!r} is not 1 to 200 printable characters"
        for name, value in values.items()
        if value is not None and not (isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable())
    ]
