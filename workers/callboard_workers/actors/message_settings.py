"""What few actors declare about their messages: limits, and the actors that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callboard_workers.actors.options import Check
from callboard_workers.errors import DurableOnly
from callboard_workers.ledger.rows import spec
from callboard_workers.limits import Concurrency, Debounce, Limits, Rate, Unique
from callboard_workers.message import Message

if TYPE_CHECKING:
    from callboard_workers.actors.sender import Sender


class Extras:
    """The options of one actor that only its own messages pay for."""

    def __init__(self, limits: Limits, on_success: Sender[Any] | None, on_dead: Sender[Any] | None) -> None:
        self.limits = limits
        self.on_success = on_success
        self.on_dead = on_dead

    def on(self, message: Message, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Message:
        """The message with what the options make of it."""
        limits, changes = self.limits, dict[str, Any]()
        if (once := limits.once()) is not None:
            changes |= {"once": once, "key": message.key or limits.key(args, kwargs)}
            if once.wait is not None and message.delay is None and message.due_at is None:
                changes["delay"] = once.wait
        if (gate := limits.gate(message.actor, args, kwargs)) is not None:
            changes["gate"] = gate
        if (follow := self.follow()) is not None:
            changes["follow"] = follow
        return msgspec.structs.replace(message, **changes)

    def follow(self) -> dict[str, Any] | None:
        """The specs of what follows one message."""
        found: dict[str, Any] = {}
        if self.on_success is not None:
            takes = self.on_success.parameters.takes(None)
            found["success"] = [spec(self.on_success.made((), {}, (), {}), takes=takes)]
        if self.on_dead is not None:
            found["dead"] = [spec(self.on_dead.made((), {}, (), {}), id=False)]
        return found or None

    def direct(self, name: str) -> None:
        """Raises DurableOnly if a message without a row cannot keep what the actor declares."""
        if words := self.limits.words():
            raise DurableOnly(
                f"{name} declares {', '.join(words)}, which rows in the ledger keep: use enqueue(session, …)"
            )
        for following in (self.on_success, self.on_dead):
            if following is not None and following.extras is not None:
                following.extras.direct(following.name)


def extras_of(check: Check, given: dict[str, Any]) -> Extras | None:
    """Takes its options out of `given`; None if there are none. Faults go to `check`."""
    limits = Limits(
        unique=_unique(check, given.pop("unique", None)),
        debounce=_of(check, "debounce", Debounce, given.pop("debounce", None)),
        concurrency=_concurrency(check, given.pop("concurrency", None)),
        rate=_rate(check, given.pop("rate", None)),
    )
    if limits.unique is not None and limits.debounce is not None:
        check.fault("debounce", "already makes a message unique until it starts; leave out `unique`")
    if limits.concurrency is not None and limits.rate is not None and limits.concurrency.key is not limits.rate.key:
        check.fault("rate", "shares its place in the line with `concurrency`: give both the same key function")
    on_success = _following(check, "on_success", given.pop("on_success", None), ())
    on_dead = _following(check, "on_dead", given.pop("on_dead", None), (None, None))
    if not limits.words() and on_success is None and on_dead is None:
        return None
    return Extras(limits, on_success, on_dead)


def _unique(check: Check, value: Any) -> Unique | None:
    if value is True:
        return Unique()
    found: Unique | None = _of(check, "unique", Unique, None if value is False else value)
    return found


def _concurrency(check: Check, value: Any) -> Concurrency | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    found: Concurrency | None = _of(check, "concurrency", Concurrency, Concurrency(value) if whole else value)
    return found


def _rate(check: Check, value: Any) -> Rate | None:
    found: Rate | None = _of(check, "rate", Rate, Rate(value) if isinstance(value, str) else value)
    return found


def _of(check: Check, option: str, kind: Any, value: Any) -> Any:
    if value is None or isinstance(value, kind):
        return value
    check.fault(option, f"{value!r} is not a {kind.__name__}(…)")
    return None


def _following(check: Check, option: str, value: Any, more: tuple[Any, ...]) -> Sender[Any] | None:
    """An actor that can be called with what it will be given."""
    if value is None:
        return None
    parameters = getattr(value, "parameters", None)
    if parameters is None:
        check.fault(option, f"{value!r} is not an actor")
        return None
    if more and not parameters.takes(*more):
        check.fault(option, f"{value.name} is called with (id of the dead message, its error)")
    if not more and not parameters.takes(None) and not parameters.takes():
        check.fault(option, f"{value.name} is called with (result), or with nothing")
    if value.extras is not None and value.extras.limits.once() is not None:
        check.fault(option, f"{value.name} is unique or debounced: it could be skipped, and nothing would follow")
    if value.extras is not None and value.extras.limits.variable():
        check.fault(option, f"{value.name} has a key made of its arguments, which are not known before the result is")
    following: Sender[Any] = value
    return following
