"""The onion: one behaviour per layer, each wrapped around the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from callboard_workers.context import Context
from callboard_workers.errors import DeclarationError
from callboard_workers.message import Message
from callboard_workers.policy import Outcome


class Process(Protocol):
    """The process that a middleware starts in; `callboard_workers.runtime.Runtime` is one."""

    working: bool
    """Whether it runs messages, rather than only sends them."""
    worker_id: str


Execute = Callable[[Context], Awaitable[Outcome]]
Send = Callable[[Message], Awaitable[Message]]

declared: dict[str, type[Any]] = {}
"""Every actor option that some middleware declares, with its type: what `@actor` accepts beyond its own."""


class Middleware:
    """One behaviour around sending and executing; override what you need.

    `options` declares the actor options this behaviour reads (from `context.actor.extra`), by name and type: an
    option that nobody declares is refused where the actor is written. Import the class before the actors.
    """

    options: ClassVar[Mapping[str, type[Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, kind in cls.options.items():
            if declared.setdefault(name, kind) is not kind:
                raise DeclarationError(f"{cls.__name__}: {name!r} is declared elsewhere, as {declared[name].__name__}")

    def startup(self, runtime: Process) -> None:
        """The runtime starts on its loop."""

    def shutdown(self, runtime: Process) -> None:
        """The runtime has stopped; nothing runs any more."""

    async def send(self, message: Message, next: Send) -> Message:
        """Around a message's sending or enqueueing; may hand on another message."""
        return await next(message)

    async def execute(self, context: Context, next: Execute) -> Outcome:
        """Around one attempt."""
        return await next(context)

    def outcome(self, context: Context, outcome: Outcome) -> None:
        """The outcome stands: it is stored, or, without a row, handed to the broker."""

    def lost(self, message: Message) -> None:
        """A worker died with this message; it was put back or quarantined."""


def onion(layers: Sequence[Middleware], core: Execute) -> Execute:
    """The layers around `core`, the first outermost; a layer that does not override `execute` costs nothing."""
    call = core
    for layer in reversed(layers):
        if type(layer).execute is not Middleware.execute:
            call = partial(layer.execute, next=call)
    return call


def sending(layers: Sequence[Middleware], core: Send) -> Send:
    """The layers around the sending of a message, the first outermost."""
    call = core
    for layer in reversed(layers):
        if type(layer).send is not Middleware.send:
            call = partial(layer.send, next=call)
    return call
