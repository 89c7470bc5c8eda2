"""Things an attempt needs opened before it and closed after it: `session: Annotated[AsyncSession, Depends(session)]`.

A provider is a plain or `async` function (its return value is injected), or a generator function, `async` or not, or
one decorated with contextlib's `contextmanager`/`asynccontextmanager`: then what it yields is injected and the rest
runs after the attempt, with the attempt's exception if it failed. Providers may depend on others in the same way;
each is opened once per attempt.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from callboard_workers.actors.parameters import hints
from callboard_workers.errors import DeclarationError

injected: Any = object()
"""The default to give a dependency's parameter, so that a type checker lets callers leave it out."""


@dataclass(frozen=True, slots=True)
class Depends:
    """Marks a parameter as filled in by the worker, with what `provider` gives."""

    provider: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider with what it depends on itself."""

    open: Callable[..., Any]
    needs: dict[str, Provider]


def dependencies(function: Callable[..., Any], above: tuple[Callable[..., Any], ...] = ()) -> dict[str, Provider]:
    """The parameters of `function` that are dependencies, with their providers; a circle is a DeclarationError."""
    if function in above:
        circle = " -> ".join(each.__qualname__ for each in (*above[above.index(function) :], function))
        raise DeclarationError(f"dependencies go in a circle: {circle}")
    found: dict[str, Provider] = {}
    for name, hint in hints(function).items():
        if get_origin(hint) is Annotated:
            for mark in get_args(hint)[1:]:
                if isinstance(mark, Depends):
                    found[name] = _provider(mark.provider, (*above, function))
    return found


def _provider(given: Callable[..., Any], above: tuple[Callable[..., Any], ...]) -> Provider:
    if not callable(given):
        raise DeclarationError(f"Depends({given!r}): a provider is a function")
    wrapped = inspect.unwrap(given)
    if inspect.isasyncgenfunction(given):
        given = contextlib.asynccontextmanager(given)
    elif inspect.isgeneratorfunction(given):
        given = contextlib.contextmanager(given)
    return Provider(given, dependencies(wrapped, above) if inspect.isfunction(wrapped) else {})


async def provide(
    needs: dict[str, Provider], stack: AsyncExitStack, opened: dict[Callable[..., Any], Any] | None = None
) -> dict[str, Any]:
    """Open what `needs` names; `stack` closes it."""
    opened = {} if opened is None else opened
    return {name: await _open(provider, stack, opened) for name, provider in needs.items()}


async def _open(provider: Provider, stack: AsyncExitStack, opened: dict[Callable[..., Any], Any]) -> Any:
    key = inspect.unwrap(provider.open)
    if key not in opened:
        made = provider.open(**await provide(provider.needs, stack, opened))
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, contextlib._AsyncGeneratorContextManager):
            made = await stack.enter_async_context(made)
        elif isinstance(made, contextlib._GeneratorContextManager):
            made = stack.enter_context(made)
        opened[key] = made
    return opened[key]
