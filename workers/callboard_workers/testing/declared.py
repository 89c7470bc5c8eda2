"""Actors that are declared inside a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from callboard_workers.actors.actor import Registry, registry


@contextlib.contextmanager
def forgetting() -> Iterator[Registry]:
    """Inside, actors may be declared at will, also under names that are taken; afterwards all is as before."""
    before = list(registry)
    try:
        yield registry
    finally:
        for each in list(registry):
            registry.discard(each.name)
        for each in before:
            registry.add(each)
